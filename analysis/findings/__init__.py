"""What the estimates of a sweep say together: maps, gains, claims."""

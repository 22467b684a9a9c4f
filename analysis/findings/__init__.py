"""What the estimates of a sweep show together: maps, gains, claims."""

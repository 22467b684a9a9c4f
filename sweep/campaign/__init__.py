"""What to compute: the campaign file, its grid, its tiles, and what a kernel must declare."""

"""What to compute: the campaign file, its grid, the tiles, and the contract of a kernel."""

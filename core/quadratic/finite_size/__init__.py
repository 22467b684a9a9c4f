"""Laws at finite N: what a sample of dimension N is expected to show."""

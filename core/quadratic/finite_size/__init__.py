"""Laws at finite N: what samples of dimension N are expected to show."""

"""The two-layer quadratic network that learns from a teacher of the same architecture."""

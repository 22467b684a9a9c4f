"""Couplings of an Ising model inferred from its samples."""

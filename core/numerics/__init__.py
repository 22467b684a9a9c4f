"""Numerics independent of any model: eigenvalue solvers and integration rules."""

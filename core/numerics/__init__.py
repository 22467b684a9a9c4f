"""Numerics that know no model: eigenvalue solvers and rules of integration."""

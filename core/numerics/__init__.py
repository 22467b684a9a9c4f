"""What knows no model: eigenvalue solvers and rules of integration."""

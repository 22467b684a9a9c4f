"""Descent on the loss from random weights: the flow on the spheres, and its data."""

"""The two-layer teacher-student network with activations other than the square."""

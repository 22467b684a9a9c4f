"""Associative memories: networks of binary neurons that retrieve patterns, and the rules by which they learn
them."""

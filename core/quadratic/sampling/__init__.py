"""One random instance, exact in law, by each method, and the theory of its own labels."""

"""One random instance, exact in law, by each method; and the theory for its own labels."""

"""Training and evaluation of worldwire, and the data engine."""

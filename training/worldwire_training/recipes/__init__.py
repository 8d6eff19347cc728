"""Whole recipes: from nothing to the weights of a world."""

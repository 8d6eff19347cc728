"""The verbs that the training package adds to the command `worldwire`."""

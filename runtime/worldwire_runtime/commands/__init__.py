"""The verbs that the runtime adds to the command `worldwire`."""

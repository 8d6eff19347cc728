"""The verbs that the client alone brings."""

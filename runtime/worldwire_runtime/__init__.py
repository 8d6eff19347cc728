"""The runtime of worldwire: model, memory, sessions and server."""

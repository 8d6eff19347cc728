"""Procedural 3-D worlds, rendered headless: scenes, exploring players and episodes with exact ground truth."""

"""Training data of one's own: recorded play, and videos with poses (docs/own_data.md)."""

from worldwire_training.own_data.capture import Captured, capture

__all__ = ["Captured", "capture"]

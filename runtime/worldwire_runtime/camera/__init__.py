"""Camera geometry on tensors: Plücker maps, frustum overlap, and the released model's own convention."""

"""`worldwire eval`: plays held-out scenes with the ground-truth inputs and compares with the rendered truth.

Read `run.py` first (the main path), then one file per metric: `quality`, `direction`, `prompts`, `revisit`,
`endurance`.
"""

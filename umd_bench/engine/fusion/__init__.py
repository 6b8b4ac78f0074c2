"""Fused training of several stages of one shape: their weights are stacked and go through the model's own forward pass.

In: training stages of one shape. Out: in each stage's run directory, the results that the stage would have alone, within
tolerances. ``fused_loop.py`` is the way in.
"""

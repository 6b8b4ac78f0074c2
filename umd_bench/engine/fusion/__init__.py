"""Several training stages of one shape trained as one: their weights are stacked, the model's forward pass is the public one.

In: training stages of one shape. Out: in each one's run directory what it would have written alone, within tolerances.
``fused_loop.py`` is the way in.
"""

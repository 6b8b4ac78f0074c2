"""The paper's tables and figures, made again from run directories alone: `python -m analysis`.

One small module an item (``mask_ratio``, ``r_t0``, ``noise_schedule``, ``methods``); ``paper/`` holds the published numbers as
data.
"""

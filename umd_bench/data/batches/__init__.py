"""Batches on the device.

In: a pack, a seed and how many images were seen. Out: images in [-1, 1] (or latents) and labels, a function of these alone.
"""

"""Batches on the device.

In: a split of a pack, a seed and the number of images seen. Out: images in [-1, 1] (or latents) and labels, which depend on
these inputs alone.
"""

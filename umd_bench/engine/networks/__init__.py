"""The auto-encoder and its parts.

In: images or latents, times, labels and mask noise. Out: predictions, or representations.
"""

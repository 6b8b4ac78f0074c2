"""The auto-encoder and its parts.

In: images or latents, times, labels and masks. Out: predictions, or features.
"""

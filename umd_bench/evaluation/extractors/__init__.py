"""Networks whose features samples and real images are compared in.

In: the name of an extractor. Out: its facts, its weights, a function from uint8 images to features.
"""

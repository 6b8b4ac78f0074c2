"""Networks whose features compare samples with real images.

In: the name of an extractor. Out: its facts, its weights, and a function from uint8 images to features.
A new extractor is a file with its network, facts and weights, and a row in registry.py. classifiers/ has the extractors that
are trained here, each for one data set.
"""

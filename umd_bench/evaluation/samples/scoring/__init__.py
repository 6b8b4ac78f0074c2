"""Scores of a set of samples: its distance from a reference set of real images, and from the training images.

In: batches of samples or a file of them, an extractor, and the reference's split or file. Out: metrics by name, with facts
about the reference. Statistics of arrays alone are in evaluation/metrics.
"""

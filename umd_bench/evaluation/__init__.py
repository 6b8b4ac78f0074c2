"""How good a trained model is: probes of its representation, and scores of its samples.

In: a parent stage's weights, or a file of samples, and a packed data set. Out: a :class:`StageResult`.
"""

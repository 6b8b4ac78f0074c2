"""Probes: how well simple classifiers recognise the classes from a representation.

In: weights and a labelled data set. Out: accuracies of ridge regression, nearest neighbours and a linear layer.
"""

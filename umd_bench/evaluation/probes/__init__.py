"""Probes of a representation.

In: weights and a labelled data set. Out: accuracies of ridge, nearest-neighbour and linear read-outs.
"""

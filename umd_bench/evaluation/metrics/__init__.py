"""Scores as functions of features, without files or networks.

In: moments or rows of features. Out: numbers in float64.
"""

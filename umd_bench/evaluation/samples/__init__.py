"""Samples, drawn and scored.

In: weights, or a file of samples. Out: scores against a reference, each with what it depends on.
"""

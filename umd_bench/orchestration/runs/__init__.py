"""Verbs on one trained run: evaluate, sample, score, import, export.

In: a run or a file. Out: scores, images or weights.
"""

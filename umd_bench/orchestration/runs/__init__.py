"""Verbs on one trained run: evaluate, sample, score a file, import and export weights.

In: a run or a file. Out: scores, images, weights, or a trial that the scheduler runs.
"""

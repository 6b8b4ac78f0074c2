"""Searches: Optuna suggests trials, pruning ends some early.

In: a sweep with a ``search`` and the progress so far. Out: trials to add and stages to drop.
"""

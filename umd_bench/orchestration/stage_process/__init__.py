"""The work of one process on one stage.

In: a results folder and a stage's key. Out: a result or a failure in the run directory. ``entry_point.py`` is the contract with
the executors, which are above this package.
"""

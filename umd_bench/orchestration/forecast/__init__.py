"""Predicts what a sweep will cost before it runs, and compares the prediction with the cost afterwards.

In: a graph of stages, and the results of finished ones. Out: seconds on devices, bytes on disk, and a table of the plan.
"""

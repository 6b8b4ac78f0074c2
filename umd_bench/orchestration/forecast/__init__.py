"""Predicts the cost of a sweep before it runs, and compares the prediction with the actual cost afterwards.

In: a graph of stages, and the results of finished ones. Out: seconds on devices, bytes on disk, and a table of the plan.
"""

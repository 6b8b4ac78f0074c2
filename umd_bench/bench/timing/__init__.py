"""Clocks, peaks and facts of the machine.

In: a function to time. Out: medians and ranges.
"""

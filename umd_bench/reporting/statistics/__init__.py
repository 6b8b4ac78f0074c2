"""Means, intervals and paired differences over seeds.

In: the long frame. Out: one row an arm.
"""

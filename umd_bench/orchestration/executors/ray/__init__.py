"""Stages on Ray, its own or a cluster that is running.

In: keys of stages. Out: which of them ended, and how.
"""

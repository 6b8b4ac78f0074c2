"""Measures how fast the package is, for `umd-bench bench`. A claim is a ratio of two speeds, timed in turn in the same run.

In: a tier, a model or a size. Out: results with tables for the terminal and for docs/performance.md.
"""

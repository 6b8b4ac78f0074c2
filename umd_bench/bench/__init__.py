"""Measures how fast the package is, for `umd-bench bench`. A claim is a ratio of two speeds that were timed in turn in one run.

In: a tier, a model or a size. Out: results with tables for the terminal and for docs/performance.md.
"""

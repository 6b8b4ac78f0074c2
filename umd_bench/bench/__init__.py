"""Measures how fast the pieces are, for `umd-bench bench`; claims are ratios of works that were timed in turn in one run.

In: a tier, a model or a size. Out: results with tables for the terminal and for docs/performance.md.
"""

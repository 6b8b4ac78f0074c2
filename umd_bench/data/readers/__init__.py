"""Readers of the layouts in which data sets are published.

In: a data set's folder or tar files. Out: picture lists by split: where each picture is, its name and its label.
"""

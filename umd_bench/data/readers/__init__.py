"""The layouts in which data sets are published.

In: a data set's own folder or tar files. Out: a ``PictureList``: where each picture lies, its label and split.
"""

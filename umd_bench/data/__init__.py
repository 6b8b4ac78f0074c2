"""Data sets: their facts (datasets), how they are packed (builtin, readers, packing), the files of a pack (packs), and batches.

In: a data set's name and size, or the user's files. Out: packs (memory-mapped arrays with a manifest) and, for training,
batches on the device. ``open_data`` opens a pack by name and packs built-in data sets on first use.
"""

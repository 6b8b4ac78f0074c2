"""Arrays and rows of features on disk.

In: numpy arrays, and a hash of everything they depend on. Out: the same arrays, in this process or a later one.
"""

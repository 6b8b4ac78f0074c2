"""Plain ways of doing what the engine does, to measure it against.

In: the same shapes. Out: the same numbers, slower.
"""

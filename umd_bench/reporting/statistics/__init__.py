"""From one row per number to one row per arm: means with intervals, differences to a baseline, the best of a search.

In: the long frame of a sweep. Out: summaries in full precision, with the notes that say what the numbers are.
"""

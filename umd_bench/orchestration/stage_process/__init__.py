"""What one process does with one stage.

In: a results folder and a key. Out: a result or a failure in the run directory.
"""

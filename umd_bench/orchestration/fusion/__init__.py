"""Whether several training stages are fused, so that they share each training step, and how.

In: the stages that are to run. Out: an executor that fuses groups of them, if that is faster. ``option.py`` is the way in for
the rest of orchestration and the command line.
"""

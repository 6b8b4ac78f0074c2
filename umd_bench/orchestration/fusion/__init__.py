"""Decides which training stages are fused, and trains them: fused stages share each training step.

In: the stages that are to run. Out: an executor that fuses groups of them, if that is faster. ``option.py`` is the way in for
the rest of orchestration and the command line.
"""

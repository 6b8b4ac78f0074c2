"""Whether and how several training stages are fused: run as one.

In: the stages that are to run. Out: an executor that runs groups of them as one, if that is faster. ``option.py`` is the way in
for the rest of orchestration and the command line.
"""

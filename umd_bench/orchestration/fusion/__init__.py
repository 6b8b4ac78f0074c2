"""Whether and how several trainings run as one.

In: stages that are to run. Out: an executor that runs groups of them as one where that is faster.
"""

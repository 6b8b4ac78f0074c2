"""Checks, before the first job, whether this machine or cluster can run the benchmark.

In: settings. Out: findings that pass, warn or fail, with a remedy for each problem.
"""

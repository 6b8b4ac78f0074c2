"""Whether this machine or cluster suits, before the first job.

In: settings. Out: findings that pass, warn or fail, each with what to do.
"""

"""Queues that jobs wait in: Slurm's, and submitit's on this machine.

In: a batch and the command of its jobs. Out: ids of jobs, and the status that the queue reports for each.
"""

"""Stages as jobs of Slurm, or of submitit on this machine.

In: keys of stages. Out: which of them ended, and how; job records under ``results/jobs``.
"""

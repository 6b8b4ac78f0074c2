"""Stages as jobs that outlive the command: jobs of Slurm, or of submitit on this machine.

In: keys of stages. Out: which of them ended, and why. Every submission has its records in ``results/jobs``.
"""

"""Stages as jobs that outlive the command: jobs of Slurm, or of submitit on this machine.

In: keys of stages. Out: which of them ended, and what ended them. Every submission has its records in ``results/jobs``.
"""

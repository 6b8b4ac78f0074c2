"""Settings of the machines that run stages: a Slurm cluster, and Ray.

In: options and files of the user. Out: frozen settings; none of them is part of a key.
"""

"""MLflow as a view of the run directories: a copy to look at, which can be deleted and made again at any time.

In: the records of sweeps and the run directories. Out: experiments and runs in an MLflow store; stages never wait for it.
"""

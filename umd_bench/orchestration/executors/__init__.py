"""Where stages run.

In: keys of stages whose run directory is prepared. Out: which of them ended and, if something ended a stage's process, the
reason. Results are in the run directories.

| module | content |
|---|---|
| ``contract`` | the promises of every executor |
| ``registry`` | the executors by name; a new one is a module here and a row there |
| ``inline`` | stages one after another in the command's process |
| ``ray/`` | stages on the actors of a private Ray or of a running Ray cluster |
| ``jobs/`` | stages as jobs that outlive the command: Slurm, or submitit's local jobs |
| ``frozen_code`` | the copy of the package that jobs and a cluster's actors run |
"""

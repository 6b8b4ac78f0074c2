"""From a resolved sweep to results: the scheduler, the executors that run stages, and the displays of their
progress.

In: trials of :mod:`umd_bench.config`. Out: run directories of :mod:`umd_bench.store`. :mod:`.launch` is the way in: it checks
the trials (:mod:`.preflight`), builds their graph (:mod:`.graph`), starts an executor and runs the :mod:`.scheduler`. The
scheduler takes its trials from a :mod:`.trial_source`, which is a grid or a :mod:`.search`.
"""

"""From a resolved sweep to results: checks, the worker that runs one stage, the runner, the executors."""

"""Stages on Ray actors: of a private Ray that ends with the command, or of a cluster that runs already and is left running.

In: keys of stages. Out: which of them ended, and why their process did.
"""

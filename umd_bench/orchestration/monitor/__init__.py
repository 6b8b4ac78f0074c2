"""Shows the progress of sweeps and finds runs by name.

In: run directories, sweep records and job records, which are only read. Out: tables and lines for the terminal, and JSON.
"""

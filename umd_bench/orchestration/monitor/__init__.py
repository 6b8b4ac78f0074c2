"""What a person sees while a sweep runs, and how runs are found by name.

In: run directories and job records. Out: tables and lines for the terminal.
"""

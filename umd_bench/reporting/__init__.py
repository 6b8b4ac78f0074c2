"""Reports: run directories become tidy frames, frames become statistics, statistics become tables, figures and HTML pages.

In: a results folder. Out: a sweep's report files, the same bytes whenever they are made again from the same run directories.
"""

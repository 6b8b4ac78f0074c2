"""What a sweep is: axes, seeds, an optional search, a report.

In: a sweep file, a tier and overrides. Out: a resolved ``Sweep`` with its trials.
"""

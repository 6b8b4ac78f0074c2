"""The models of a sweep: axes, seeds, an optional search and a report; and the way from files to trials.

In: a sweep file, a tier and overrides. Out: a resolved ``Sweep`` with its trials.
"""

"""Summaries as tables and figures: Markdown, CSV, LaTeX, HTML, the terminal, PNG and PDF.

In: summaries. Out: text and image bytes; :mod:`umd_bench.reporting.report` writes them into files.
"""

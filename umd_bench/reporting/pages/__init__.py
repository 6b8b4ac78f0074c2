"""Tables and figures as Markdown, CSV, LaTeX, HTML and PNG.

In: summaries. Out: text and images.
"""

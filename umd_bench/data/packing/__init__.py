"""Packing: from the user's image files to packs of pixels, and from packs of pixels to packs of latents.

In: a folder with the user's files. Out: a pack. Pictures are decoded in parallel, and an interrupted packing is continued.
"""

"""Packing: from the user's image files to packs of pixels, and from those to packs of latents.

In: a folder of the user. Out: a pack, written in parallel; an interrupted packing is continued.
"""

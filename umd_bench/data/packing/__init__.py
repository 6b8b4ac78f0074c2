"""From image files to packs, of pixels or of latents.

In: a folder of the user. Out: a pack, written in parallel and resumable.
"""

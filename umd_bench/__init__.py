"""umd_bench: which corruption of an image auto-encoder serves both the representation and the samples."""

__version__ = "0.1.0"

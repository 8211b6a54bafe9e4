"""A folder of sensitive images in, a differentially private image generator and data set out."""

__version__ = "0.1.0"

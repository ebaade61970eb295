"""Fitting head weights: examples in, a folder with weights out."""

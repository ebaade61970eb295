"""Fits head weights and calibrations: examples in, a folder with weights out.

Reads with the modules that pruning reads with, so that weights are fitted to what they are used on.
Only the command line and the evals import it; it needs the extra `train`.
"""

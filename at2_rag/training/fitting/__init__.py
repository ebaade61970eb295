"""Fits head weights to collected samples, and judges them out of fold and on dev examples.

`train` is the one way in. Imports `training.collection`; the commands and `training.calibrating`
import it.
"""

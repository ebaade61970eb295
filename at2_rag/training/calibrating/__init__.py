"""Calibrating head weights: from labelled questions to probabilities, and how good those are.

`calibrator.calibrate` is the way in. May import training.collection and training.fitting; imported
by training.commands.
"""

"""Reads examples for training and keeps what was read, so that a killed run goes on.

`Collection` is the store: rows of numbers, shard by shard. The other modules say what is read of
an example: features, ablations, features of answers, drops, scores of sentences; and in which lists
of chunks it is read. Imports reading, pruning and `training.answering`; `training.fitting` and
`training.calibrating` import it.
"""

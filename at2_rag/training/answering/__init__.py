"""The whole model with its LM head: generates answers, and says how likely an answer is.

Imports reading; `training.collection` and the evals import it.
"""

"""Reports as pages and plots: draws the plain values it is given.

Imports only `text`; imported by results, training.commands, evals and benchmarks.
"""

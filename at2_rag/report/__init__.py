"""Reports as pages and plots: draws the plain values it is given.

Imports nothing else of at2_rag; imported by training.commands, evals and benchmarks.
"""

"""Results and reports as text, pages and plots: draws the plain values it is given.

Imports nothing else of at2_rag; imported by results, cli, training.commands, evals and benchmarks.
"""

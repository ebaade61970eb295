"""What results and reports look like: text for a terminal, pages and plots. Computes nothing.

Imports nothing else of at2_rag; imported by results, cli, training.commands, evals and benchmarks.
"""

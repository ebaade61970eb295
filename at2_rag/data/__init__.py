"""Questions with labelled chunks: reading them, their sources and what they have in common.

For training and evals, the only ones to import it; imports only `text` and `errors`.
"""

"""Questions with labelled chunks: read from files, grouped, and searched for their answers.

Only training and evals import it; it imports `text` and `errors`.
"""

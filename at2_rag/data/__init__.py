"""Questions with labelled chunks: read, grouped, searched for answers, and drawn for intervals.

Only training and evals import it; it imports `text` and `errors`.
"""

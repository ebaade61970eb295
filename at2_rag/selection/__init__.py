"""From scores, options and texts to what is kept, without torch.

Imports `options`, `text`, `arrays` and `errors`; imported by `pruning` and evals.
"""

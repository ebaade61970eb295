"""Labels and teacher scores for examples that have none: by embeddings, from a file, by an LLM.

Imports `data` and nothing that reads with the scoring model; `commands.label` composes it, and the
evals use its `ChatModel`. What each module needs is in the extra `label`.
"""

"""Evals of at2_rag: how well pruners and rankers do on questions with labelled chunks.

`at2-rag eval ranking FILES...` is the way in; `docs/evals.md` explains what is measured and how.
What needs more than the dependencies of at2_rag comes with `pip install "at2-rag[evals]"`.
"""

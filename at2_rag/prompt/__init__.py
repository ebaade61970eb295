"""The scoring model's prompt: token ids of prefix, chunks, question and answer, with their spans.

No model is run. Imports only `text` and `errors`; `reading` and everything above it may import it.
"""

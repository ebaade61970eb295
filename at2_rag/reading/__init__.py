"""The attention of a question's tokens to chunks, by one pass over a prompt or chunk by chunk.

The only room that knows what is inside a transformers model. Imports `prompt`, `text`, `progress`
and `errors`; imported by `readout`, `states` and every room above.
"""

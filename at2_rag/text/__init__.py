"""Chunks and their texts: what a chunk is, its sentences, blocks and protected parts, token counts.

No torch. Imports only `errors`; every other room may import it.
"""

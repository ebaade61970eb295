"""Chunks and their texts: what a chunk is, its sentences, blocks and protected parts, token counts.

No torch. Imports only `errors` and, for work that is given up, `wanted`; every other room may
import it.
"""

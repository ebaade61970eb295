"""Scoring models: found by name, fetched, converted, loaded and fingerprinted.

Nothing here reads attention or scores. Imports only `errors`, `files` and `progress`; every room
that needs a model's name, folder or fingerprint may import it.
"""

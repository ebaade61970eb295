"""Scoring models as they come: found by name, fetched, converted, checked, loaded, fingerprinted.

Nothing here reads attention or scores. Imports only `errors`, `files` and `progress`; every room
that needs a model's name, folder or fingerprint may import it.
"""

"""Readers of published data sets: from their files as they are to examples."""

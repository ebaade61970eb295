"""Readers of published data sets, one a file: from their files as they are to examples."""

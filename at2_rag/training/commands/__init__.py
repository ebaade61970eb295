"""What the commands `train` and `calibrate` do: read files, run, write weights and a report.

Imported by `at2_rag.cli` only when a command runs.
"""

"""The `at2-rag` command: one module a command, their shared options, and what they read and print.

May import everything; nothing but `__main__` and plug-ins imports it. Modules here import torch and
transformers inside functions only, so that `--help` stays quick.
"""

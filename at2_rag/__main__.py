"""`python -m at2_rag` is the command `at2-rag`."""

from at2_rag.cli.group import main

main(prog_name="at2-rag")

"""The systems that `at2-rag eval fidelity` compares beyond the rankers, one a file."""

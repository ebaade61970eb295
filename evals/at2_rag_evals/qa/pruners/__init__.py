"""What `at2-rag eval qa` compares, one a file, all of them a `Pruner`."""

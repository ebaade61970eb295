"""The measures of `at2-rag eval fidelity`, one a file; pure numbers, no model."""

"""How well a generator answers from what a pruner kept: `at2-rag eval qa`."""

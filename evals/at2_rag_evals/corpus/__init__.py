"""The corpus eval: pruning judged on a user's documents and questions, from retrieval to answer."""

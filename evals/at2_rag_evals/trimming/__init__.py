"""The trimming eval: whether sentences keep the answer in half of the tokens of whole chunks."""

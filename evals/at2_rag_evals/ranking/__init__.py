"""The ranking eval: how well systems rank the gold chunks of labelled questions."""

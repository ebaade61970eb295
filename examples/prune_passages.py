"""Prune passages in plain Python: question and passages in, the relevant ones out.

python examples/prune_passages.py "Which river flows through four national capitals?"
"""

import json
import sys
from pathlib import Path

from at2_rag import AT2Pruner

QUESTION = "Which moon of Jupiter has active volcanoes, and why?"
PASSAGES = Path(__file__).with_name("passages.jsonl")


def main() -> None:
    """Print the passages that are kept for the question."""
    question = " ".join(sys.argv[1:]) or QUESTION
    passages = [json.loads(line) for line in PASSAGES.read_text(encoding="utf-8").splitlines()]

    pruner = AT2Pruner.from_pretrained()
    result = pruner.prune(question, passages, top_k=3, max_tokens=500)

    print(f"Question: {question}\n")
    for kept in result.kept:
        # kept.chunk is the caller's own object, with all of its keys
        print(f"{kept.score:6.2f}  {kept.chunk['id']:<20} {kept.text[:60]}...")
    print(f"\n{len(result.kept)} of {len(passages)} passages", end=", ")
    print(f"{result.tokens_after} of {result.tokens_before} tokens", end=", ")
    print(f"{result.timings['total']:.2f} s")

    print("\nThe context for your prompt:\n")
    print(result.context)


if __name__ == "__main__":
    main()

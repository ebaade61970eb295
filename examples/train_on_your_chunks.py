"""Fit head weights on your own questions and chunks, without labels or answers.

python examples/train_on_your_chunks.py

The examples are what a retriever returns for each question; `at2-rag train` does the rest. Two
dozen questions show the way; use a few hundred.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from at2_rag import AT2Pruner
from local_parts import BM25Index, read_passages

QUESTION = "Which moon of Jupiter has active volcanoes, and why?"
QUESTIONS = Path(__file__).with_name("questions.txt")


def write_examples(path: Path) -> None:
    """Write a line for each question: the question and the eight best passages of BM25."""
    passages = read_passages()
    index = BM25Index([f"{passage['title']}\n{passage['text']}" for passage in passages])
    with path.open("w", encoding="utf-8") as file:
        for line, question in enumerate(QUESTIONS.read_text(encoding="utf-8").splitlines()):
            chunks = [passages[number] for number, _ in index.search(question, 8)]
            example = {"id": str(line), "question": question, "chunks": chunks}
            file.write(json.dumps(example) + "\n")


def main() -> None:
    """Write the examples, train on them, and prune with the weights that come out."""
    question = " ".join(sys.argv[1:]) or QUESTION
    with TemporaryDirectory() as folder:
        data, weights = Path(folder) / "questions.jsonl", Path(folder) / "weights"
        write_examples(data)
        subprocess.run(
            [sys.executable, "-m", "at2_rag", "train", str(data), "--signal", "ablation"]
            + ["--output", str(weights)]
            + ["--features", "log:together+apart", "--masks", "8", "--answer-tokens", "16"],
            check=True,
        )
        pruner = AT2Pruner.from_pretrained(head_weights=weights)

    result = pruner.prune(question, read_passages(), top_k=3)
    print(f"Question: {question}\n")
    for kept in result.kept:
        print(f"{kept.score:6.2f}  {kept.title:<20} {kept.text[:60]}...")


if __name__ == "__main__":
    main()

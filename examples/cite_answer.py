"""Cite the sources of an answer that any LLM has written, sentence by sentence.

python examples/cite_answer.py
"""

from at2_rag import AT2Attributor
from local_parts import read_passages

QUESTION = "Which moon of Jupiter has active volcanoes, and why?"
ANSWER = (
    "Io is the most volcanically active body known in the solar system. "
    "Europa and Ganymede keep its orbit out of round, so that the tides heat its interior. "
    "Ganymede itself is larger than the planet Mercury."
)


def main() -> None:
    """Print the answer with its sources, and the sentences it relies on most."""
    moons = ("europa", "io", "ganymede", "titan", "krakatoa", "vesuvius")
    passages = [passage for passage in read_passages() if passage["id"] in moons]

    attributor = AT2Attributor.from_pretrained()
    cited = attributor.cite(QUESTION, passages, ANSWER)
    print(cited.text, "\n")
    for number, source in enumerate(cited.sources, start=1):
        print(f"[{number}] {source.title}")

    attribution = attributor.attribute(QUESTION, passages, ANSWER, unit="sentence")
    print("\nThe answer as a whole relies most on")
    for sentence in attribution.best_sentences[:3]:
        print(f"  {passages[sentence.chunk_index]['title']}: {sentence.text}")


if __name__ == "__main__":
    main()

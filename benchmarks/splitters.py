"""Compares sentence splitters by the borders they find, their speed, and what breaks them.

    python benchmarks/splitters.py tests/text/borders.txt [MORE.txt | TREEBANK.conllu ...]

A `.txt` has a language, a tab and a text with ¦ at each border on a line; of a `.conllu` the
sentences of each document are joined (treebanks of the PUD kind: newsprint and encyclopedias, the
same in all languages). A splitter that isn't installed is left out.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import click

from at2_rag.text.sentences import sentence_spans

MARK = "¦"
WITHOUT_SPACES = ("ja", "zh", "th")
SECONDS = 20  # for a hostile text
HOSTILE = {
    "lone surrogate": "One \ud800 two. Three.",
    "200 kB of dots": "." * 200_000,
    "200 kB of brackets": "(" * 200_000,
    "200 kB of quotes": '"' * 200_000,
    "200 kB of initials": "A. B. " * 33_333,
    "200 kB, one line": "He saw one more of them. " * 8_000,
    "wide characters": "。\u3000あ𠮷。！é\u0301。\u3000" * 1_000,
}

Splitter = Callable[[str, str], list[str]]  # language and text to sentences


def ours(language: str, text: str) -> list[str]:
    """Split as at2_rag does; the language isn't used."""
    return [text[start:end] for start, end in sentence_spans(text)]


def sentencex(language: str, text: str) -> list[str]:
    """Split by Wikimedia's rules for some 30 languages, with fall-backs for others."""
    return list(import_module("sentencex").segment(language, text))


def pysbd(language: str, text: str) -> list[str]:
    """Split by the port of Pragmatic Segmenter."""
    module = import_module("pysbd")
    known = import_module("pysbd.languages").LANGUAGE_CODES
    return list(
        module.Segmenter(language if language in known else "en", clean=False).segment(text)
    )


def blingfire(language: str, text: str) -> list[str]:
    """Split by Microsoft's automaton, one for all languages."""
    return str(import_module("blingfire").text_to_sentences(text)).split("\n")


def syntok(language: str, text: str) -> list[str]:
    """Split by rules for English, German and Spanish."""
    paragraphs = import_module("syntok.segmenter").process(text)
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
    return ["".join(f"{token.spacing}{token.value}" for token in one) for one in sentences]


def nupunkt(language: str, text: str) -> list[str]:
    """Split by Punkt, trained on English legal text."""
    return [text[start:end] for start, end in import_module("nupunkt").sent_spans(text)]


def icu(language: str, text: str) -> list[str]:
    """Split by Unicode's rules, with CLDR's abbreviations of the language."""
    module = import_module("icu")
    breaks = module.BreakIterator.createSentenceInstance(module.Locale(f"{language}@ss=standard"))
    breaks.setText(text)
    units = text.encode("utf-16-le", "surrogatepass")  # ICU counts in UTF-16
    ends = [0, *breaks]
    pairs = zip(ends, ends[1:], strict=False)
    return [units[2 * a : 2 * b].decode("utf-16-le", "surrogatepass") for a, b in pairs]


def uniseg(language: str, text: str) -> list[str]:
    """Split by Unicode's rules alone."""
    return list(import_module("uniseg.sentencebreak").sentences(text))


SPLITTERS: tuple[Splitter, ...] = (
    ours, sentencex, pysbd, blingfire, syntok, nupunkt, icu, uniseg,
)  # fmt: skip


@cache
def texts(path: Path) -> tuple[tuple[str, str], ...]:
    """Return languages and marked texts of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".conllu":
        return tuple(_documents(path.name[:2], lines))
    pairs = (line.partition("\t") for line in lines if line and not line.startswith("#"))
    return tuple((language, text) for language, _, text in pairs)


def _documents(language: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    space = "" if language in WITHOUT_SPACES else " "
    sentences: list[str] = []
    for line in [*lines, "# newdoc"]:
        if line.startswith("# newdoc") and sentences:
            yield language, f"{MARK}{space}".join(sentences)
            sentences = []
        elif line.startswith("# text ="):
            sentences.append(line.partition("=")[2].strip())


def borders(sentences: list[str]) -> set[int]:
    """Return how many characters, without white space, stand before each border."""
    sizes = [len("".join(sentence.split())) for sentence in sentences]
    return set(accumulate(size for size in sizes if size)) - {sum(sizes)}


def counts(split: Splitter, path: Path, language: str | None) -> tuple[int, int, int, int]:
    """Return borders, how many of them it finds, wrong ones, and texts that came back changed."""
    there = right = wrong = changed = 0
    for known, marked in texts(path):
        text = marked.replace(MARK, "")
        true = borders(marked.split(MARK))
        there += len(true)
        try:
            sentences = split(language or known, text)
        except BaseException:  # a panic of Rust is no Exception
            sentences = []
        if "".join("".join(sentences).split()) != "".join(text.split()):
            changed += 1
            continue
        cuts = borders(sentences)
        right, wrong = right + len(cuts & true), wrong + len(cuts - true)
    return there, right, wrong, changed


def speed(split: Splitter, path: Path) -> float:
    """Return how many MB of UTF-8 a CPU second are split; the best of three rounds."""
    pairs = [(language, marked.replace(MARK, "")) for language, marked in texts(path)]
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for language, text in pairs:
            split(language, text)
        best = min(best, time.process_time() - start)
    return sum(len(text.encode()) for _, text in pairs) / best / 1e6


def outcome(split: Splitter, name: str) -> str:
    """Return what becomes of a hostile text, in a process of its own: seconds or what was wrong."""
    command = [sys.executable, __file__, "--hostile", split.__name__, name]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"> {SECONDS} s"
    return run.stdout.strip() if run.returncode == 0 else run.stderr.strip().splitlines()[-1][:40]


@click.command("splitters")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--hostile", nargs=2, hidden=True)
def main(*, files: tuple[Path, ...], hostile: tuple[str, str] | None) -> None:
    """Print a table for each file, and one of hostile texts."""
    by_name: dict[str, Any] = {split.__name__: split for split in SPLITTERS}
    if hostile:
        split, text = by_name[hostile[0]], HOSTILE[hostile[1]]
        start = time.process_time()
        kept = "".join("".join(split("en", text)).split()) == "".join(text.split())
        print(f"{time.process_time() - start:.2f} s" if kept else "text changed")
        return
    installed = []
    for split in SPLITTERS:
        try:
            split("en", "One. Two.")
        except ImportError:
            continue
        installed.append(split)
    for path in files:
        print(f"\n{path.name}\n\n| splitter | language | right | of | wrong | changed | MB/s |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for split in installed:
            for language in (None, "en"):
                there, right, wrong, changed = counts(split, path, language)
                row = [split.__name__, language or "known", right, there, wrong, changed]
                print("|", " | ".join(map(str, [*row, f"{speed(split, path):.2f}"])), "|")
                if split in (ours, blingfire, syntok, nupunkt, uniseg):
                    break
    print("\n| hostile text |", " | ".join(split.__name__ for split in installed), "|")
    print("| --- |" + " --- |" * len(installed))
    for name in HOSTILE:
        print(f"| {name} |", " | ".join(outcome(split, name) for split in installed), "|")


if __name__ == "__main__":
    main()

"""A file of scores by any ranker: which chunk of which example has which score.

JSON Lines, one score a line, or CSV with these columns (a file whose name ends in `.csv`, or
`.csv.gz`):

    {"id": "q1", "index": 0, "score": 7.25}
    {"id": "q1", "chunk_id": "emma-3", "score": -1.5}

`id` is the example's, `index` the chunk's in its list, from 0, or `chunk_id` the chunk's `id`, and
`score` a finite number, larger for a better chunk. `source` tells examples apart that have the
same id. All other keys are ignored.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, brief
from at2_rag.files import data_lines

_MOST_NAMED = 5

_logger = logging.getLogger(__name__)


def read_scores(path: Path, examples: Sequence[Example]) -> list[list[float | None]]:
    """Return each chunk's score, for each example, None where the file has none.

    Scores of examples that aren't there are counted in a warning.

    Raises:
        DataError: If the file can't be read, a line isn't a score, names no chunk of its example or
            one that has a score already, or more than one example; or if no example has a score.
    """
    by_id: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        by_id[example.id].append(number)
    scores: list[list[float | None]] = [[None] * len(example.chunks) for example in examples]
    unknown, bad = 0, []
    for line, row in _rows(path):
        try:
            if not isinstance(row, dict) or None in row:
                raise DataError(f"{brief(row)}; expected an object, or a field for each column")
            score = _number(row.get("score"))
            position = _example(row, examples, by_id)
            if position is None:
                unknown += 1
                continue
            index = _chunk(row, examples[position])
            if scores[position][index] is not None:
                raise DataError(f"chunk {index} of {row['id']!r} has a score already; remove one")
            scores[position][index] = score
        except DataError as error:
            bad.append(f"line {line}: {error}")
    if bad:
        more = f"; and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
        raise DataError(f"{path}, {'; '.join(bad[:_MOST_NAMED])}{more}")
    if all(score is None for of_example in scores for score in of_example):
        raise DataError(
            f"{path}: none of its {unknown} scores is of one of the {len(examples)} examples; "
            "'id' has to be an example's"
        )
    if unknown:
        _logger.warning("%s: %d scores are of examples that aren't in FILES", path, unknown)
    return scores


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the values of the file, each with the number of its last line."""
    line = 0
    try:
        if path.name.removesuffix(".gz").endswith(".csv"):
            texts = (data.decode("utf-8-sig" if not n else "utf-8") for n, data in _lines(path))
            reader = csv.DictReader(texts, strict=True)
            for row in reader:
                line = reader.line_num
                yield line, row
            return
        for line, data in _lines(path):
            if not data.strip():
                continue
            yield line + 1, json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 after line {line} ({error.reason})") from error
    except (csv.Error, ValueError, RecursionError) as error:
        kind = "CSV" if isinstance(error, csv.Error) else "JSON"
        raise DataError(f"{path}: not {kind} after line {line} ({error})") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: can't be read after line {line}: {reason}") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    return enumerate(data_lines(path))


def _example(
    row: Mapping[str, Any], examples: Sequence[Example], by_id: Mapping[str, Sequence[int]]
) -> int | None:
    """Return the index of a row's example; None if there is none."""
    name, source = row.get("id"), row.get("source")
    if not isinstance(name, str):
        raise DataError(f"'id' is {brief(name)}; expected an example's id, a string")
    numbers = [n for n in by_id.get(name, ()) if source in (None, "", examples[n].source)]
    if len(numbers) > 1:
        raise DataError(f"{len(numbers)} examples have the id {name!r}; add their 'source'")
    return numbers[0] if numbers else None


def _chunk(row: Mapping[str, Any], example: Example) -> int:
    """Return the index of a row's chunk."""
    index, chunk_id = row.get("index"), row.get("chunk_id")
    if (index in (None, "")) == (chunk_id in (None, "")):
        raise DataError("expected either 'index' or 'chunk_id' to name a chunk")
    if index in (None, ""):
        ids = [chunk.id for chunk in example.chunks]
        if ids.count(str(chunk_id)) != 1:
            raise DataError(
                f"{ids.count(str(chunk_id))} chunks of {example.id!r} have the id "
                f"{brief(chunk_id)}; name one by its 'index'"
            )
        return ids.index(str(chunk_id))
    number = int(index) if isinstance(index, str) and index.strip().isdecimal() else index
    if type(number) is not int or not 0 <= number < len(example.chunks):
        raise DataError(
            f"'index' is {brief(index)}; expected a whole number from 0 to "
            f"{len(example.chunks) - 1}, as {example.id!r} has {len(example.chunks)} chunks"
        )
    return number


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise DataError(f"'score' is {brief(value)}; expected a finite number")
    return number

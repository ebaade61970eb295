"""The page of a training run, drawn from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from at2_rag.report.page import render_page
from at2_rag.report.plots import heat_map, themed


def training_page(record: Mapping[str, Any]) -> str:
    """Return the page; `record` is the content of `training.json`."""
    candidates = record["candidates"]
    return render_page(
        "training.html.jinja",
        record=record,
        facts=_facts(record),
        chosen=next(row for row in candidates if row["chosen"]),
        sources=list(candidates[0]["by_source"]),
        with_objective=record["settings"]["signal"] != "evidence",
        maps=_maps(record["head_importance"]),
    )


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings, samples, run = record["settings"], record["samples"], record["run"]
    peak, machine = run["peak_memory_mb"], run["machine"]
    files = [f"{file['name']} ({file['examples']:,})" for file in record["data"]]
    by_source = [f"{name} {count:,}" for name, count in samples.items()]
    left_out = [f"{count:,} {reason}" for reason, count in record["left_out"].items()]
    seconds = [f"{name} {value:,.1f}" for name, value in run["seconds"].items()]
    versions = [f"{name} {value}" for name, value in record["versions"].items()]
    ablations = []
    if settings["signal"] != "evidence":
        masks = f"{settings['masks']} random masks, over {settings['reading']} chunk states"
        generated = settings["answers"] == "generated"
        limit = f", of at most {settings['answer_tokens']} tokens" if generated else ""
        ablations = [("Ablations", masks), ("Answers", settings["answers"] + limit)]
    return [
        ("Command", record["command"]),
        ("Model", settings["model"]),
        ("Signal", settings["signal"]),
        ("Target", settings["target"]),
        ("Reading", record["reading"]),
        *ablations,
        ("Data", ", ".join(files)),
        ("Samples", f"{sum(samples.values()):,} ({', '.join(by_source)})"),
        ("Left out", ", ".join(left_out) or "none"),
        ("Seed, folds", f"{settings['seed']}, {settings['folds']}"),
        ("Seconds", ", ".join(seconds)),
        ("Peak memory", f"{peak:,} MB" if peak is not None else "not known on this system"),
        ("Machine", f"{machine['system']}, {machine['processor']}, {machine['cores']} cores"),
        ("Versions", ", ".join(versions)),
    ]


def _maps(importance: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Return a heat map [L, H] of each pass by its name, all on one scale of colours."""
    values = importance["values"]
    highest = max(value for matrix in values for row in matrix for value in row)
    maps = []
    for name, matrix in zip(importance["passes"], values, strict=True):
        title = f"Importance of heads in the pass {name}"
        svg = heat_map(matrix, title=title, x_label="head", y_label="layer", highest=highest)
        maps.append((name, themed(svg)))
    return maps

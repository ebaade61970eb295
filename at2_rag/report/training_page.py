"""What a training run is worth, and its page, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from at2_rag.report.page import render_page
from at2_rag.report.plots import heat_map, themed
from at2_rag.report.verdict import Verdict

_UNJUDGED = (
    "the weights weren't judged on questions that had no part in choosing them, and the figures "
    "out of fold are slightly too good, since the design was chosen by them; pass --dev FILE."
)
_RULE = (
    "Yes, if the 95 % interval of the difference in nDCG@10 lies above zero; no, if it lies below. "
    "Questions that share a gold passage, its page or their chunks count as one cluster, and fewer "
    "than ten clusters have no interval."
)
_UNCALIBRATED = (
    "They aren't calibrated: scores rank, but there are no probabilities until at2-rag calibrate "
    "has run on other questions."
)


def training_page(record: Mapping[str, Any]) -> str:
    """Return the page; `record` is the content of `training.json`."""
    candidates = record["candidates"]
    return render_page(
        "training.html.jinja",
        verdict=training_verdict(record),
        record=record,
        facts=_facts(record),
        chosen=next(row for row in candidates if row["chosen"]),
        sources=list(candidates[0]["by_source"]),
        with_objective=record["settings"]["signal"] != "evidence",
        with_faithfulness=_is_ablated(record),
        maps=_maps(record["head_importance"]),
    )


def training_verdict(record: Mapping[str, Any]) -> Verdict:
    """Return what a run's record says about its weights, on questions that weren't trained on."""
    settings, dev = record["settings"], record["dev"]
    chosen = next(row for row in record["candidates"] if row["chosen"])
    over = " of the teacher's best chunk" if record["judged_by"] == "teacher" else ""
    figures = [(f"{chosen['ndcg_at_10']:.3f}", f"nDCG@10{over} out of fold")]
    if _is_ablated(record) and chosen["faithfulness"] is not None:
        figures.append((f"{chosen['faithfulness']:.3f}", "faithfulness out of fold"))
    question = f"Do these head weights for {settings['model']} rank well?"
    if settings["target"] == "answer":
        question = f"Do these head weights for {settings['model']} attribute answers well?"
        reason = "there is no baseline to compare with; these are the figures out of fold."
        return Verdict(question, "No verdict", (reason,), figures=tuple(figures))
    rule = ""
    if dev is None:
        answer, reasons = "No verdict", [_UNJUDGED]
    else:
        answer, reasons = _on_dev(dev)
        rule = _RULE
        before = dev["as_retrieved"]
        figures = [
            (
                f"{dev['ndcg_at_10']:.3f}",
                f"nDCG@10 on dev; {before['ndcg_at_10']:.3f} as retrieved",
            ),
            (
                f"{100 * dev['gold_first']:.1f} %",
                f"gold ranked first on dev; {100 * before['gold_first']:.1f} % as retrieved",
            ),
            *figures,
        ]
    return Verdict(question, answer, (*reasons, _UNCALIBRATED), rule, figures=tuple(figures))


def _is_ablated(record: Mapping[str, Any]) -> bool:
    return record["settings"]["signal"] in ("ablation", "both")


def _on_dev(dev: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the answer, and why, from the figures on dev."""
    count, interval = sum(dev["examples"].values()), dev["gain_interval"]
    before = dev["as_retrieved"]["ndcg_at_10"]
    gain = f"{dev['ndcg_at_10'] - before:+.3f}"
    answer = f"Can't tell from {count:,} dev questions"
    if interval is None:
        gain += ", without an interval"
    else:
        gain += f", 95 % interval {interval[0]:+.3f} to {interval[1]:+.3f}"
        if interval[0] > 0:
            answer = "Yes"
        elif interval[1] < 0:
            answer = "No"
    reasons = [
        f"on {count:,} dev questions nDCG@10 is {dev['ndcg_at_10']:.3f}, against {before:.3f} for "
        f"the order in which the chunks were retrieved ({gain})."
    ]
    if shared := dev["shared_with_training"]:
        reasons.append(
            f"But {shared:,} of the dev questions share a gold passage or their words with "
            "training questions, so these figures are too good."
        )
    return answer, reasons


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings, samples, run = record["settings"], record["samples"], record["run"]
    peak, machine = run["peak_memory_mb"], run["machine"]
    files = [f"{file['name']} ({file['examples']:,})" for file in record["data"]]
    by_source = [f"{name} {count:,}" for name, count in samples.items()]
    left_out = [f"{count:,} {reason}" for reason, count in record["left_out"].items()]
    seconds = [f"{name} {value:,.1f}" for name, value in run["seconds"].items()]
    versions = [f"{name} {value}" for name, value in record["versions"].items()]
    ablations = []
    if _is_ablated(record):
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

"""The designs that a training run tried, as people see them in a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from at2_rag.training.fitting.ablation_trainer import AblationTraining
from at2_rag.training.fitting.trainer import Training


def results_table(training: Training | AblationTraining) -> Table:
    """Return a table of all designs with their quality, the chosen one in bold."""
    sources = list(training.chosen.by_source)
    table = Table(title="nDCG@10 out of fold", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("features", no_wrap=True)
    objectives = "objective" in training.chosen.figures()
    for heading in (*["objective"] * objectives, "layers", "ridge", "macro", *sources):
        table.add_column(Text(heading), justify="right")
    for result in training.results:
        design, figures = result.candidate, result.figures()
        table.add_row(
            Text(f"{design.spec.quantity}:{'+'.join(design.spec.passes)}"),
            *([figures["objective"]] if objectives else []),
            str(design.depth),
            f"{design.ridge:g}",
            f"{result.ndcg:.3f}",
            *(f"{result.by_source[name]:.3f}" for name in sources),
            style="bold" if result is training.chosen else None,
        )
    return table

"""Progress of long work: lines with the time left, bars on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from at2_rag.progress import StepProgress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(steps: list[tuple[float, str, int, int]], *, terminal: bool = False) -> str:
    """What is shown for calls (seconds since the last one, stage, done, total)."""
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with StepProgress(console=console, clock=clock) as progress:
        for seconds, *step in steps:
            clock.now += seconds
            progress(*step)  # type: ignore[arg-type]
    return out.getvalue()


def test_a_line_now_and_then_says_how_long_it_will_take() -> None:
    shown = run(
        [
            (0, "reading", 0, 1055),
            (29, "reading", 20, 1055),
            (1, "reading", 21, 1055),
            (29, "reading", 40, 1055),
            (121, "reading", 120, 1055),
            (7150, "reading", 1055, 1055),
        ]
    )
    assert shown.splitlines() == [
        "reading: 21/1055, 30 s elapsed, about 25 min left",  # 30 / 21 * 1034 s = 24.6 min
        "reading: 120/1055, 3 min elapsed, about 23 min left",  # 180 / 120 * 935 s = 23.4 min
        "reading: 1055/1055, 2 h 2 min elapsed",
    ]


def test_steps_done_before_do_not_count_for_the_time_left() -> None:
    shown = run([(0, "reading", 900, 1000), (40, "reading", 910, 1000)])
    assert shown == "reading: 910/1000, 40 s elapsed, about 6 min left\n"  # 9 times 40 s
    shown = run([(0, "a", 3, 9), (31, "a", 3, 9)])
    assert shown == "a: 3/9, 31 s elapsed\n"  # nothing done, nothing promised


def test_every_stage_ends_with_a_line() -> None:
    shown = run(
        [(0, "a", 0, 2), (1, "a", 2, 2), (5, "b", 0, 1), (2, "b", 1, 1), (0, "nothing", 0, 0)]
    )
    assert shown.splitlines() == [
        "a: 2/2, 1 s elapsed",
        "b: 1/1, 2 s elapsed",
        "nothing: 0/0, 0 s elapsed",
    ]


def test_names_are_shown_as_they_are() -> None:
    shown = run([(0, "[red]x[/red] " + "long " * 40, 1, 1)])
    assert shown.startswith("[red]x[/red] long") and shown.count("\n") == 1


def test_a_terminal_gets_bars() -> None:
    shown = run([(0, "[a]", 0, 4), (3, "[a]", 4, 4)], terminal=True)
    assert "4/4" in shown and "[a]" in shown and "elapsed" not in shown


def test_a_stage_by_its_share_is_announced_and_ends() -> None:
    lines: list[str] = []
    clock = Clock()
    with StepProgress(
        console=Console(file=io.StringIO()), write=lines.append, clock=clock
    ) as progress:
        with progress.stage("Waiting"):
            pass
        with progress.stage("Fetching") as report:
            for share in (0.0, 0.5, 1.0):
                report(share)
                clock.now += 20
    assert lines == ["Waiting", "Fetching", "Fetching: 100/100, 40 s elapsed"]
    assert progress.seconds == {"Waiting": 0, "Fetching": 40}

"""Plots as SVG: well formed, values where they belong, and no state left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from at2_rag.report import plots
from at2_rag.report.plots import Series, heat_map, interval_plot, reliability_plot, themed

SVG = "{http://www.w3.org/2000/svg}"


def root_of(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    return root


def group(svg: str, name: str) -> ElementTree.Element:
    [element] = [one for one in root_of(svg).iter(f"{SVG}g") if one.get("id") == name]
    return element


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in root_of(svg).iter(f"{SVG}text")]


def test_equal_values_are_equal_colours_and_the_scale_starts_at_zero() -> None:
    def colours(values: np.ndarray) -> list[str]:
        svg = heat_map(values, title="Map", x_label="head", y_label="layer", highest=1.0)
        styles = [path.get("style") or "" for path in group(svg, "QuadMesh_1").iter(f"{SVG}path")]
        return [style.split("fill: ")[1].split(";")[0] for style in styles if "fill: " in style]

    values = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
    full, half = colours(values), colours(values / 2)
    assert len(full) == 6 and len(set(full)) == 3
    assert full[0] == full[4] and full[1] == full[3] and full[2] == full[5]
    assert half[1] == full[2] and half[0] == full[0]


@pytest.mark.parametrize("shape", [(1, 1), (30, 9)])
def test_maps_have_ticks_within_their_shape_and_leave_matplotlibs_settings(
    shape: tuple[int, int],
) -> None:
    before = dict(mpl.rcParams)
    svg = heat_map(np.zeros(shape), title="Map", x_label="head", y_label="layer", highest=0.0)
    numbers = [int(text) for text in texts(svg) if text.isdigit()]
    assert 0 in numbers and max(numbers) < max(shape)
    assert {"head", "layer"} <= set(texts(svg))
    assert dict(mpl.rcParams) == before


def test_no_global_figures_and_the_pip_line_where_matplotlib_is_missing() -> None:
    code = "import at2_rag.report.training_page, sys; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    code = "import sys; sys.modules['matplotlib'] = None; import at2_rag.report.plots"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'run: pip install "at2-rag[train]"' in done.stderr.splitlines()[-1]


def test_intervals_have_a_legend_round_ticks_and_a_lowest_value() -> None:
    series = [
        Series("full & long", [(2785.0, 0.92, 0.91, 0.93)]),
        Series("ours", [(186.0, 0.94, 0.93, 0.96), (520.0, 0.95, None, None)], emphasis=True),
        Series("closed", [(0.0, 0.9, 0.89, 0.91)]),
    ]
    svg = interval_plot(series, title="C", x_label="tokens", y_label="accuracy", lowest=0.85)
    assert {"full & long", "ours", "closed", "200", "500", "1,000", "2,000"} <= set(texts(svg))
    values = [float(text) for text in texts(svg) if text.startswith("0.")]
    assert min(values) >= 0.85 and max(values) < 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", ["$5$", r"$\bad$", r"a\$b", "_x", "_$a_1$"])
def test_labels_from_outside_are_text_whatever_they_begin_with(label: str) -> None:
    series = [Series("other", [(1.0, 0.5, 0.4, 0.6)]), Series(label, [(0.0, 0.5, None, None)])]
    drawn = [
        interval_plot(series, title="T", x_label="$x$", y_label="y", x_names=names)
        for names in ((), (label, "b"))
    ]
    for svg in (*drawn, reliability_plot(series, title="T")):
        legend = [one for one in root_of(svg).iter(f"{SVG}g") if one.get("id") == "legend_1"]
        entries = [
            "".join(text.itertext()).strip() for one in legend for text in one.iter(f"{SVG}text")
        ]
        assert sorted(entries) == sorted(["other", label])
    assert "$x$" in texts(drawn[0]) and texts(drawn[1]).count(label) == 2


def numbers(element: ElementTree.Element, name: str) -> list[float]:
    return [float(value) for value in (element.get(name) or "").split()]


def test_a_phone_can_show_every_plot_with_legible_letters_and_a_legend_within_it() -> None:
    names = [f"the number {number} of many long names" for number in range(14)]
    series = [Series(name, [(100.0, 0.5, 0.4, 0.6), (9000.0, 0.6, None, None)]) for name in names]
    drawn = [
        interval_plot(series, title="I", x_label="tokens", y_label="accuracy"),
        interval_plot(series, title="N", x_label="x", y_label="y", x_names=["a", "b-c"]),
        heat_map(np.ones((30, 9)), title="H", x_label="head", y_label="layer", highest=1.0),
    ]
    for svg in drawn:
        *_, width, height = numbers(root_of(svg), "viewBox")
        assert 9 * 360 / width >= 9  # pixels of the smallest letters, of 9 points
        legend = [one for one in root_of(svg).iter(f"{SVG}g") if one.get("id") == "legend_1"]
        for text in (text for one in legend for text in one.iter(f"{SVG}text")):
            x, y = numbers(text, "x") + numbers(text, "y")
            letters = len("".join(text.itertext()).strip())
            assert 0 < x < x + 4.5 * letters < width and 0 < y < height


def test_a_page_gives_a_plot_the_colours_of_its_theme() -> None:
    series = [Series("a & b <i>", [(1.0, 0.5, 0.4, 0.6)], emphasis=True)]
    plain = interval_plot(series, title="T", x_label="x", y_label="y")
    svg = themed(plain)
    assert "var(" not in plain and "a &amp; b &lt;i&gt;" in svg
    for colour, variable in (("#ffffff", "paper"), ("#1b1f24", "ink"), ("#d5d9de", "rule")):
        assert colour in plain and colour not in svg and f"var(--{variable})" in svg
    assert "var(--accent)" in svg
    style = Path(plots.__file__).with_name("templates") / "style.css"
    light, dark = style.read_text().split("@media (prefers-color-scheme: dark)")
    known = set(re.findall(r"(--[a-z]+):", light))
    assert set(re.findall(r"var\((--[a-z]+)\)", svg + light + dark)) <= known
    assert set(re.findall(r"(--[a-z]+):", dark)) == known - {"--accent"}


def contrast(one: str, two: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_every_series_stands_out_on_white_and_on_a_dark_page() -> None:
    style = (Path(plots.__file__).with_name("templates") / "style.css").read_text()
    papers = re.findall(r"--paper: (#\w+)", style)
    assert len(papers) == 2 and contrast("#000000", "#ffffff") == pytest.approx(21)
    series = [Series(str(number), [(1.0, 0.5, None, None)]) for number in range(12)]
    svg = interval_plot(series, title="T", x_label="x", y_label="y", legend=False)
    colours = set(re.findall(r"stroke: (#\w{6})", svg)) - {"#1b1f24", "#d5d9de"}
    assert len(colours) == 12
    for colour in colours:
        for paper in papers:
            assert contrast(colour, paper.ljust(7, paper[-1])) >= 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [(), ("first", "last")])
def test_intervals_of_nothing_but_zeros_can_be_drawn(names: tuple[str, ...]) -> None:
    series = [Series("a", [(1.0, 0.0, 0.0, 0.0)]), Series("b", [(0.0, 0.0, None, None)])]
    svg = interval_plot(series, title="Z", x_label="x", y_label="y", x_names=names)
    assert set(names) <= set(texts(svg))


def test_reliability_has_a_legend_and_one_line_a_series_beside_the_perfect_one() -> None:
    series = [
        Series(name, [(0.1, share, None, None), (0.8, 0.9, None, None)], name == "all")
        for name, share in (("all", 0.2), ("novels", 0.3))
    ]
    svg = reliability_plot(series, title="Reliability")
    assert {"all", "novels", "mean probability of a bin"} <= set(texts(svg))
    lines = [one for one in group(svg, "axes_1") if (one.get("id") or "").startswith("line2d")]
    assert len(lines) == 3

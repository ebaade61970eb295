"""Plots as SVG: well formed, the values in their places, and no state left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from at2_rag.report.plots import Bar, Series, bar_plot, heat_map, interval_plot, line_plot

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return ["".join(found.itertext()).strip() for found in _root(svg).iter(f"{SVG}text")]


def _root(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    return root


def placed(svg: str) -> list[tuple[float, str]]:
    """Texts with where they stand from the left."""
    found = []
    for element in _root(svg).iter(f"{SVG}text"):
        moved = re.search(r"translate\((\S+) ", element.get("transform") or "")
        place = element.get("x") or (moved.group(1) if moved else "nan")
        found.append((float(place), "".join(element.itertext()).strip()))
    return found


def cells(svg: str) -> list[str]:
    """Colours of a heat map's cells, in drawing order."""
    root = _root(svg)
    [mesh] = [group for group in root.iter(f"{SVG}g") if group.get("id") == "QuadMesh_1"]
    styles = [path.get("style") or "" for path in mesh.iter(f"{SVG}path")]
    return [style.split("fill: ")[1].split(";")[0] for style in styles if "fill: " in style]


def test_a_line_has_labels_and_values() -> None:
    svg = line_plot([1, 2, 4], [0.5, 0.25, 1], title="Curve", x_label="x & y", y_label="quality")
    assert {"x & y", "quality", "0.500", "0.250", "1.000"} <= set(texts(svg))
    assert _root(svg).findtext(f"{SVG}title") == "Curve"


def test_small_differences_look_small() -> None:
    svg = line_plot([1, 2], [0.712, 0.714], title="Curve", x_label="x", y_label="y")
    ticks = [float(text) for text in texts(svg) if text.startswith("0.") and len(text) == 4]
    assert max(ticks) - min(ticks) >= 0.06


def test_equal_values_are_equal_colours_and_the_scale_starts_at_zero() -> None:
    values = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
    found = cells(heat_map(values, title="Map", x_label="head", y_label="layer"))
    assert len(found) == 6 and len(set(found)) == 3
    assert found[0] == found[4] and found[1] == found[3] and found[2] == found[5]
    halved = cells(heat_map(values / 2, title="Map", x_label="head", y_label="layer", highest=1.0))
    assert halved[1] == found[2] and halved[0] == found[0]


@pytest.mark.parametrize("shape", [(1, 1), (30, 9), (12, 64)])
def test_maps_of_any_shape_have_ticks_within_it(shape: tuple[int, int]) -> None:
    svg = heat_map(np.zeros(shape), title="Map", x_label="head", y_label="layer")
    numbers = [int(text) for text in texts(svg) if text.isdigit()]
    assert numbers and max(numbers) < max(shape)
    assert {"head", "layer"} <= set(texts(svg))


def test_settings_of_matplotlib_are_left_as_they_were() -> None:
    before = dict(mpl.rcParams)
    line_plot([1, 2], [1, 2], title="t", x_label="x", y_label="y")
    assert dict(mpl.rcParams) == before


def test_no_global_figures_and_the_pip_line_where_matplotlib_is_missing() -> None:
    code = "import at2_rag.report.training_page, sys; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    code = "import sys; sys.modules['matplotlib'] = None; import at2_rag.report.plots"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'run: pip install "at2-rag[train]"' in done.stderr.splitlines()[-1]


def test_intervals_have_a_legend_and_round_ticks() -> None:
    series = [
        Series("full & long", [(2785.0, 0.2, 0.1, 0.3)]),
        Series("ours", [(186.0, 0.48, 0.3, 0.6), (520.0, 0.25, None, None)], emphasis=True),
        Series("closed", [(0.0, 0.05, 0.0, 0.1)]),
    ]
    svg = interval_plot(series, title="Curves", x_label="tokens", y_label="accuracy")
    assert {"full & long", "ours", "closed", "200", "500", "1,000", "2,000"} <= set(texts(svg))
    small = interval_plot(series, title="C", x_label="tokens", y_label="accuracy", legend=False)
    assert "ours" not in texts(small)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [(), ("first", "last")])
def test_intervals_of_nothing_but_zeros_can_be_drawn(names: tuple[str, ...]) -> None:
    for x in (0.0, 1.0, 40.0):
        series = [Series("a", [(x, 0.0, 0.0, 0.0)]), Series("b", [(x, 0.0, None, None)])]
        svg = interval_plot(series, title="Z", x_label="x", y_label="y", x_names=names)
        assert set(names) <= set(texts(svg))


@pytest.mark.filterwarnings("error")
def test_intervals_of_zeros_far_apart_can_be_drawn_beside_a_line() -> None:
    points = [(994.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (106.0, 0.0, 0.0, 0.0)]
    series = [Series(str(place), [own]) for place, own in enumerate(points)]
    svg = interval_plot(series, title="Z", x_label="x", y_label="y")
    assert {"200", "500"} <= set(texts(svg))


def test_bars_stand_in_order_with_their_names_and_lengths() -> None:
    bars = [Bar("one", 0.1, 0.09, 0.2, limit=0.3, emphasis=True), Bar("two", 10.0, 9.0, 12.0)]
    svg = bar_plot(bars, title="Bars", x_label="times & more")
    found = texts(svg)
    assert found.index("one") < found.index("two")
    assert {"times & more", "0.1", "1", "10"} <= set(found)
    ends = {}
    for group in _root(svg).iter(f"{SVG}g"):
        if group.get("id") in ("patch_3", "patch_4"):  # after the page and the axes
            ends[group.get("id")] = max(
                map(float, re.findall("[ML] (\\S+)", group[0].get("d", "")))
            )
    one, two = ends["patch_3"], ends["patch_4"]
    [tick_one] = [x for x, text in placed(svg) if text == "1"]
    [tick_ten] = [x for x, text in placed(svg) if text == "10"]
    assert two - one == pytest.approx(2 * (tick_ten - tick_one), rel=1e-3)


def test_an_axis_of_values_begins_where_it_is_told() -> None:
    series = [Series("ours", [(1, 0.91, 0.9, 0.92), (2, 0.95, None, None)])]
    svg = interval_plot(series, title="t", x_label="x", y_label="y", lowest=0.85)
    values = [float(text) for text in texts(svg) if text.startswith("0.")]
    assert min(values) >= 0.85 and max(values) < 1

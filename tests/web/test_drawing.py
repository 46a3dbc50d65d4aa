"""What the server draws: round scales, curves that lose no peak, graphs without overlaps, and no text taken for markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlg_ml_tasks.tasks.showing import Extent, Waterfall, write_waterfall
from dlg_ml_tasks.web.drawing.axes import scale, tick_text
from dlg_ml_tasks.web.drawing.curves import Axis, Chart, Curve, thinned
from dlg_ml_tasks.web.drawing.graph import Link, Node, draw


@given(
    st.lists(
        st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-9), max_size=5
    )
)
def test_a_scale_holds_all_values_and_has_a_few_ticks_within(values: list[float]) -> None:
    found = scale(values, 0, 100)
    assert all(-1e-6 <= found(value) <= 100 + 1e-6 for value in values)
    assert 2 <= len(found.ticks) <= 12
    assert all(found.low - 1e-9 * abs(found.low) <= tick <= found.high + 1e-9 * abs(found.high) for tick in found.ticks)


def test_a_scale_of_counts_has_whole_ticks() -> None:
    assert scale([1, 2], 0, 1, whole=True).ticks == (1, 2)
    assert tick_text(-0.25) == "\N{MINUS SIGN}0.25"


def test_a_chart_is_well_formed_names_its_units_and_escapes_names() -> None:
    chart = Chart(
        title="<script>",
        x=Axis(label="frequency", unit="MHz"),
        y=Axis(label='a "quoted" & sharp <name>', unit="%"),
        curves=[Curve(name="<b>", x=[1, 2, 3], y=[1.0, None, 3.0])],
    )
    text = str(chart.svg())
    tree = ET.fromstring(text)
    assert "frequency (MHz)" in {element.text for element in tree.iter()}
    assert "<script" not in text
    assert "style=" not in text


def test_a_gap_is_no_line() -> None:
    chart = Chart(
        title="t",
        x=Axis(label="x"),
        y=Axis(label="y"),
        curves=[Curve(name="c", x=[1, 2, 3, 4], y=[1.0, None, 3.0, 4.0])],
    )
    [path] = re.findall(r'class="curve curve-1" d="([^"]+)"', str(chart.svg()))
    assert (path.count("M"), path.count("L")) == (2, 1)


def test_thinning_keeps_every_stretch_s_peaks() -> None:
    ys = np.zeros(100_000)
    ys[54_321], ys[777] = 9.0, -5.0
    curve = Curve(name="c", x=np.arange(100_000.0).tolist(), y=ys.tolist())
    kept = thinned(curve)
    assert len(kept) <= 1500
    assert {(54_321.0, 9.0), (777.0, -5.0)} <= set(kept)


def nodes_of(count: int) -> list[Node]:
    return [Node(id=f"n{i}", kind="run", label=f"<{i}>", detail='"', href=f"runs/{i}") for i in range(count)]


@given(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] < pair[1]), max_size=30))
def test_no_two_nodes_of_a_graph_overlap_and_every_edge_goes_right(pairs: set[tuple[int, int]]) -> None:
    links = [Link(source=f"n{a}", target=f"n{b}", role="data") for a, b in pairs]
    tree = ET.fromstring(str(draw(nodes_of(12), links, "/p")))
    boxes = [tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height")) for rect in tree.iter("rect")]
    assert len(boxes) == 12
    for (x1, y1, w1, h1), (x2, y2, w2, h2) in combinations(boxes, 2):
        assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1
    for edge in tree.iter("path"):
        numbers = [float(each) for each in re.findall(r"-?[\d.]+", edge.attrib["d"])]
        assert numbers[0] < numbers[-2]
    assert [link.attrib["href"] for link in tree.iter("a")] == [f"/p/runs/{i}" for i in range(12)]


def test_a_cycle_is_refused() -> None:
    links = [Link(source="n0", target="n1", role=""), Link(source="n1", target="n0", role="")]
    with pytest.raises(ValueError, match="cycle"):
        draw(nodes_of(2), links, "")


def test_a_waterfall_is_one_pixel_per_sample_in_viridis_with_masks_that_are_clear_elsewhere(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    values = np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 2.0]], np.float32)
    mask = np.array([[True, False, False], [False, False, True]])
    extent = Extent(label="x", first=0, last=1)
    write_waterfall(tmp_path, "w", values, title="t", x=extent, y=extent, value=extent, masks={"ours": mask})
    described = Waterfall.model_validate_json((tmp_path / "w.waterfall.json").read_text())
    picture = np.asarray(Image.open(tmp_path / described.file).convert("RGB"))
    assert picture.shape == (2, 3, 3)
    assert picture[0, 0].tolist() == [68, 1, 84]
    assert picture[0, 2].tolist() == picture[1, 2].tolist() == [253, 231, 36]
    layer = np.asarray(Image.open(tmp_path / described.layers[0].file).convert("RGBA"))
    np.testing.assert_array_equal(layer[..., 3] == 255, mask)
    np.testing.assert_array_equal(layer[..., 3] == 0, ~mask)
    assert described.layers[0].fraction == pytest.approx(1 / 3)

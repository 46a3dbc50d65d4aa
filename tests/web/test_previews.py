"""Files shown in place: the right header of each kind, little read of large ones, and never a pickle."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlg_ml_tasks.web.previews import Preview, preview


class Fetched:
    """A file whose reading is counted."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.bytes = 0

    def __call__(self, start: int, end: int) -> bytes:
        self.bytes += end - start
        return self.content[start:end]

    def preview(self, name: str) -> Preview:
        return preview(name, len(self.content), self)


def saved(save: Callable[[io.BytesIO], Any]) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def test_a_numpy_array_shows_shape_type_and_span() -> None:
    shown = Fetched(saved(lambda stream: np.save(stream, np.array([[1.0, np.nan, 4.0]])))).preview("a.npy")
    assert shown.rows == [["1 × 3", "float64", "1", "2.5", "4"]]


def test_of_a_large_array_only_the_header_is_read() -> None:
    fetched = Fetched(saved(lambda stream: np.save(stream, np.zeros(2_000_000))))
    assert fetched.preview("large.npy").rows == [["2000000", "float64", "", "", ""]]
    assert fetched.bytes <= 256 << 10


def test_a_numpy_archive_lists_its_arrays() -> None:
    content = saved(
        lambda stream: np.savez_compressed(stream, flags=np.ones((2, 3), bool), names=np.array(["a", "bc"]))
    )
    rows = Fetched(content).preview("a.npz").rows
    assert [row[:3] for row in rows] == [["flags", "2 × 3", "bool"], ["names", "2", "<U2"]]


def test_an_array_of_objects_is_named_and_not_unpickled() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("it was unpickled",))

    content = saved(lambda stream: np.save(stream, np.array([Trap()], object), allow_pickle=True))
    assert Fetched(content).preview("trap.npy").rows == [["1", "object", "", "", ""]]
    assert Fetched(pickle.dumps(Trap())).preview("trap.pkl").kind == "none"


def test_a_parquet_table_shows_its_columns() -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pa.table({"time": [1.0, 2.0], "name": ["a", None]})
    shown = Fetched(saved(lambda stream: pyarrow.parquet.write_table(table, stream))).preview("t.parquet")
    assert [row[:2] for row in shown.rows] == [["time", "double"], ["name", "string"]]
    assert "2 rows" in shown.note


def test_a_fits_file_shows_the_headers_of_all_its_units_without_their_data() -> None:
    fits = pytest.importorskip("astropy.io.fits")
    primary = fits.PrimaryHDU(np.zeros((10, 3000), np.float32))
    primary.header["OBJECT"] = ("it's 3C 273 / core", "target")
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=np.zeros(5))])
    fetched = Fetched(saved(fits.HDUList([primary, table]).writeto))
    cards = fetched.preview("image.fits").rows
    assert ["0", "OBJECT", "it's 3C 273 / core", "target"] in cards
    assert ["0", "NAXIS1", "3000"] in [card[:3] for card in cards]
    assert ["1", "TTYPE1", "flux"] in [card[:3] for card in cards]
    assert len(fetched.content) > 120_000


def test_an_hdf5_file_lists_groups_and_data_sets(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.uvh5", "w") as file:
        file["Header/latitude"] = 30.0
        file["Data/visdata"] = np.zeros((4, 5), np.complex64)
    shown = Fetched((tmp_path / "a.uvh5").read_bytes()).preview("a.uvh5")
    assert ["Data/visdata", "4 × 5", "complex64"] in [row[:3] for row in shown.rows]


def test_a_safetensors_file_lists_its_tensors() -> None:
    from safetensors.numpy import save

    shown = Fetched(save({"conv.weight": np.zeros((8, 1), np.float16)})).preview("w.safetensors")
    assert shown.rows == [["conv.weight", "8 × 1", "F16"]]


def test_text_json_and_csv_are_shown_as_what_they_are() -> None:
    assert Fetched(b"one\ntwo").preview("task.log").text == "one\ntwo"
    assert json.loads(Fetched(b'{"a":[1]}').preview("a.json").text) == {"a": [1]}
    assert Fetched(b"{torn").preview("a.json").text == "{torn"
    shown = Fetched(b"a,b\n1,2\n").preview("t.csv")
    assert (shown.columns, shown.rows, shown.more) == (["a", "b"], [["1", "2"]], False)


def test_of_a_long_text_the_beginning_is_shown() -> None:
    fetched = Fetched(b"line\n" * 1_000_000)
    shown = fetched.preview("task.log")
    assert shown.more
    assert fetched.bytes <= 256 << 10


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.parquet", "a.fits", "a.h5", "a.safetensors"])
def test_a_file_that_is_not_what_its_name_says_is_told_so(name: str) -> None:
    for content in (b"nonsense", b"\xff" * 4000, b"SIMPLE  =" + b" " * 100):
        shown = Fetched(content).preview(name)
        assert (shown.kind, shown.rows) == ("none", [])
        assert "no readable" in shown.note


def test_an_empty_file_and_an_unknown_one_say_so() -> None:
    assert "empty" in Fetched(b"").preview("a.npy").note
    assert "not shown" in Fetched(b"\0\1" * 200_000).preview("core.bin").note

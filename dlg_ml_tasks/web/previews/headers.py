"""The headers of scientific files: what is in them, without reading it. Nothing here unpickles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from typing import Any, BinaryIO

from dlg_ml_tasks.web.pages.formatting import number, size
from dlg_ml_tasks.web.previews.model import Preview

_MOST_ROWS = 400
_STATISTICS_BYTES = 8 << 20  # of a larger array only the header is read
_LARGEST_HEADER = 16 << 20
_FITS_BLOCK, _FITS_CARD = 2880, 80
_MOST_HDUS = 50


def npy(file: BinaryIO, length: int) -> Preview:
    """Shape, type and, of a small array, what its values span."""
    columns = ["shape", "dtype", "least", "mean", "greatest"]
    return Preview(kind="table", note="A NumPy array.", columns=columns, rows=[_array(file, length)])


def npz(file: BinaryIO, length: int) -> Preview:
    """The arrays of a NumPy archive."""
    with zipfile.ZipFile(file) as archive:
        rows = []
        for info in archive.infolist()[:_MOST_ROWS]:
            with archive.open(info) as member:
                rows.append(
                    [info.filename.removesuffix(".npy"), *_array(member, info.file_size), size(info.compress_size)]
                )
    columns = ["array", "shape", "dtype", "least", "mean", "greatest", "stored"]
    return Preview(kind="table", note="A NumPy archive of arrays.", columns=columns, rows=rows)


def _array(file: Any, length: int) -> list[str]:
    import numpy as np
    from numpy.lib import format as npy_format

    version = npy_format.read_magic(file)  # type: ignore[no-untyped-call]
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(file)  # type: ignore[no-untyped-call]
    shown = [_shape(shape), str(dtype)]
    if dtype.hasobject or length > _STATISTICS_BYTES or dtype.kind not in "biuf":
        return [*shown, "", "", ""]
    values = np.frombuffer(file.read(length), dtype)
    finite = values[np.isfinite(values)] if dtype.kind == "f" else values
    if not finite.size:
        return [*shown, "", "", ""]
    return [*shown, *(number(float(each)) for each in (finite.min(), finite.mean(dtype=np.float64), finite.max()))]


def parquet(file: BinaryIO, length: int) -> Preview:
    """The columns of a parquet file and how many rows it has."""
    import pyarrow.parquet

    read = pyarrow.parquet.ParquetFile(file)
    rows = [[field.name, str(field.type), "yes" if field.nullable else "no"] for field in read.schema_arrow]
    note = f"A parquet table of {number(read.metadata.num_rows)} rows in {number(read.metadata.num_row_groups)} row groups."
    return Preview(kind="table", note=note, columns=["column", "type", "may be null"], rows=rows[:_MOST_ROWS])


def fits(file: BinaryIO, length: int) -> Preview:
    """The cards of a FITS file's headers (FITS standard 4.0, section 4): blocks of 2880 bytes, cards of 80 characters."""
    rows: list[list[str]] = []
    at = 0
    for unit in range(_MOST_HDUS):
        if at >= length or len(rows) >= _MOST_ROWS:
            break
        cards, at = _cards(file, at)
        if not unit and not cards[0][0].startswith("SIMPLE"):
            raise ValueError("no FITS file")
        rows += [[str(unit), *card] for card in cards]
        at += _data_bytes({key: value for key, value, _ in cards})
    return Preview(
        kind="table",
        note="The headers of a FITS file.",
        columns=["HDU", "keyword", "value", "comment"],
        rows=rows[:_MOST_ROWS],
        more=len(rows) > _MOST_ROWS or at < length,
    )


def _cards(file: BinaryIO, at: int) -> tuple[list[list[str]], int]:
    cards: list[list[str]] = []
    file.seek(at)
    while at < _LARGEST_HEADER or len(cards) < _MOST_ROWS:
        block = file.read(_FITS_BLOCK)
        if len(block) < _FITS_BLOCK:
            raise ValueError("a header that does not end")
        at += _FITS_BLOCK
        for first in range(0, _FITS_BLOCK, _FITS_CARD):
            card = block[first : first + _FITS_CARD].decode("ascii", "replace")
            keyword = card[:8].strip()
            if keyword == "END":
                return cards, at
            if keyword:
                value, comment = _value(card[10:]) if card[8:10] == "= " else ("", card[8:].strip())
                cards.append([keyword, value, comment])
    raise ValueError("a header that does not end")


def _value(text: str) -> tuple[str, str]:
    """A card's value and comment; a quote within a text is doubled."""
    text = text.strip()
    if text.startswith("'"):
        end = text.find("'", 1)
        while end > 0 and text[end : end + 2] == "''":
            end = text.find("'", end + 2)
        return text[1:end].replace("''", "'").rstrip(), text[end + 1 :].partition("/")[2].strip()
    value, _, comment = text.partition("/")
    return value.strip(), comment.strip()


def _data_bytes(header: dict[str, str]) -> int:
    axes = [int(header.get(f"NAXIS{axis}", 0)) for axis in range(1, int(header.get("NAXIS", 0)) + 1)]
    count = 1
    for axis in axes:
        count *= axis
    elements = int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + count) if axes else 0
    return -(-elements * abs(int(header.get("BITPIX", 8))) // 8 // _FITS_BLOCK) * _FITS_BLOCK


def hdf5(file: BinaryIO, length: int) -> Preview:
    """The groups and data sets of an HDF5 file, with shapes, types and small attributes' names."""
    try:
        import h5py
    except ImportError:
        return Preview(kind="none", note="HDF5 headers are shown where the package h5py is installed.")
    rows: list[list[str]] = []

    def visit(name: str, found: Any) -> bool | None:
        if isinstance(found, h5py.Dataset):
            rows.append(
                [
                    name,
                    _shape(found.shape or ()),
                    str(found.dtype),
                    size(found.id.get_storage_size()),
                ]
            )
        else:
            rows.append([f"{name}/", "", "group", ""])
        return True if len(rows) >= _MOST_ROWS else None

    with h5py.File(file, "r") as opened:
        stopped = opened.visititems(visit)
    columns = ["name", "shape", "type", "stored"]
    return Preview(kind="table", note="The contents of an HDF5 file.", columns=columns, rows=rows, more=bool(stopped))


def safetensors(file: BinaryIO, length: int) -> Preview:
    """The tensors of a safetensors file: eight bytes of length, then a JSON header."""
    header_length = int.from_bytes(file.read(8), "little")
    if header_length > min(length, _LARGEST_HEADER):
        raise ValueError("no safetensors file")
    header = json.loads(file.read(header_length))
    rows = [
        [name, _shape(each["shape"]), str(each["dtype"])]
        for name, each in sorted(header.items())
        if name != "__metadata__"
    ]
    columns = ["tensor", "shape", "type"]
    return Preview(
        kind="table",
        note="The tensors of a safetensors file.",
        columns=columns,
        rows=rows[:_MOST_ROWS],
        more=len(rows) > _MOST_ROWS,
    )


def _shape(shape: Sequence[int]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) or "scalar"

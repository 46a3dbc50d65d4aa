"""What a preview holds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Preview(BaseModel):
    """A file in place. By `kind`: a picture; `text` (perhaps only the beginning: `more`); a table of `columns` and `rows`.

    A header (of NumPy, FITS, HDF5, parquet and safetensors files) is a table, too. `note` says in words what is shown.
    """

    kind: Literal["picture", "text", "table", "none"]
    note: str = ""
    text: str = ""
    columns: list[str] = []
    rows: list[list[str]] = []
    more: bool = False

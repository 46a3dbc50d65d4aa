"""docs/archive.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlg_ml_tasks.archive import NgasError, NgasFileSystem, errors
from dlg_ml_tasks.archive.server import EmbeddedNgas
from dlg_ml_tasks.archive.server.commands import COMMANDS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "archive.md").read_text()
EXAMPLE_SERVER = "archive.example:7777"


def test_the_table_of_errors_is_that_of_the_code() -> None:
    told = {
        name: {base for base in re.findall(r"`(\w+)`", also) if base != "ENOSPC"}
        for name, also in re.findall(r"^\| `(\w+)` \| ([^|]*)\|", TEXT, re.MULTILINE)
        if hasattr(errors, name)
    }
    classes = {
        cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, NgasError)
    }
    del classes["NgasError"]
    assert told == {
        name: {base.__name__ for base in cls.__bases__ if base is not NgasError} for name, cls in classes.items()
    }


def test_every_variable_that_the_code_reads_is_explained_and_no_other() -> None:
    code = "\n".join(file.read_text() for file in (ROOT / "dlg_ml_tasks/archive").rglob("*.py"))
    assert set(re.findall(r"DLG_ML_NGAS_\w+", TEXT)) == set(re.findall(r"DLG_ML_NGAS_\w+", code))


def test_every_command_that_the_server_does_not_have_is_not_claimed() -> None:
    claimed = re.search(r"^- Commands: ([^.]*)\.", TEXT, re.MULTILINE)
    assert claimed is not None
    names = set(re.findall(r"\b[A-Z]{3,}\b", claimed[1]))
    assert names == {name for name in COMMANDS if not re.fullmatch(r"C[A-Z]+", name) or name in ("CHECKFILE", "CLONE")}


@pytest.mark.integration
def test_the_examples_run_in_the_order_in_which_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("pandas", "pyarrow", "xarray", "zarr"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(examples) == 5
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / "in" / f"{number}.txt").write_text(str(number))
    with EmbeddedNgas(tmp_path / "ngas") as server:
        NgasFileSystem(server.host, server.port).put(f"{tmp_path}/in/", "/night-A/small/", recursive=True)
        names: dict[str, object] = {}
        for example in examples:
            exec(compile(example.replace(EXAMPLE_SERVER, f"{server.host}:{server.port}"), "archive.md", "exec"), names)
    assert (tmp_path / "gains.parquet").stat().st_size == names["sizes"]["/night-A/gains.parquet"]  # type: ignore[index]
    assert {file.name: file.read_text() for file in (tmp_path / "small").iterdir() if file.suffix == ".txt"} == {
        f"{number}.txt": str(number) for number in range(20)
    }

"""load_raw: bring raw files from anywhere into the archive, each with its checksum."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel

from dlg_ml_tasks.tasks.batches import BATCH_FILE, Batch, write_batch
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.parameters import LoadRawParams
from dlg_ml_tasks.tasks.recipe import Recipe, load_recipe, load_recipe_class
from dlg_ml_tasks.tasks.shares import share
from dlg_ml_tasks.tracking.files import hash_file

RAW = "raw"
_SAMPLE = "sample:"
# What file systems report about a file that changes when its content does.
_STATE_KEYS = ("size", "mtime", "LastModified", "last_modified", "created", "ETag", "etag", "checksum", "modify")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Listed:
    """A file of a source before it is looked at; `name` is its path below the source."""

    fs: fsspec.AbstractFileSystem
    path: str
    name: str

    @property
    def source(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))


class _Found(BaseModel):
    """A file of the batch: where it is, its size if known, and what changes with its content."""

    source: str
    name: str
    size: int | None
    state: list[str]


def resolve(params: LoadRawParams, inputs: Mapping[str, Any]) -> Any:
    """What the batch's part of the sources holds now: every file with its size and version, so that a file that belongs to another
    batch changes nothing here. Raises BadInput if a source holds nothing.
    """
    if params.batches > 1 and params.batch is None:
        raise BadInput(f"the parameter batch must say which of the {params.batches} batches to load")
    if params.recipe:
        load_recipe(params.recipe, params.settings)
    for source in params.sources:
        if source.startswith(_SAMPLE) and not params.recipe:
            raise BadInput(f"source {source!r} needs the parameter 'recipe' to say whose sample data it is")
    return [file.model_dump() for file in _find(params)]


def uses(params: LoadRawParams) -> Sequence[object]:
    """The recipe's code decides only what 'sample:' sources hold."""
    return [load_recipe_class(params.recipe)] if any(s.startswith(_SAMPLE) for s in params.sources) else []


def perform(context: Context, params: LoadRawParams) -> Result:
    """Copy every file into the archive as the artifact `raw`, with a table of checksums in `sources.json`.

    A batch takes its share of the files only. One without files is stored as such: there may be fewer files tonight than batches.
    """
    folder = context.folder(RAW)
    table: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for source in params.sources:
        if source.startswith(_SAMPLE):
            context.run.progress(f"making {source}")
            made = _make_sample(context, params, source.removeprefix(_SAMPLE))
            table += [_into(folder, made[name], name, source) for name in _share(params, made)]
    found = [_Found.model_validate(each) for each in context.resolved]
    for index, file in enumerate(found, 1):
        context.run.progress(f"file {index}/{len(found)}")
        try:
            table.append(_copy(file, folder))
        except (BadInput, OSError) as error:
            reason = f"{file.source}: {error}"
            if params.on_error == "stop":
                raise BadInput(f"cannot load {reason}; mend or remove the file, or set on_error=skip") from error
            log.warning("skipped %s", reason)
            skipped[file.name] = reason
    if skipped and not table:
        raise BadInput(f"no file of {params.sources} could be loaded: {skipped}")
    if params.batch is not None:
        write_batch(folder, Batch(number=params.batch, of=params.batches, sources=tuple(params.sources)))
    listing = context.records / "sources.json"
    listing.write_text(json.dumps({"files": table, "skipped": skipped}, indent=2))
    reference = context.run.log_files(folder, RAW, context.fingerprint)
    size = sum(row["size"] for row in table)
    return Result(reference, {"files": len(table), "bytes": size, "skipped": len(skipped)})


def _find(params: LoadRawParams) -> list[_Found]:
    """The files of the batch, apart from sample data. Only these are looked at: every batch of a survey lists all its files."""
    remote = [source for source in params.sources if not source.startswith(_SAMPLE)]
    listed: dict[str, _Listed] = {}
    for file in (file for source in remote for file in _list(source)):
        if file.name in listed:
            raise BadInput(
                f"two sources have the name {file.name!r}: {listed[file.name].source} and {file.source}; load them in two tasks"
            )
        if file.name == BATCH_FILE:
            raise BadInput(f"{file.source} has a name that load_raw uses itself; rename it")
        listed[file.name] = file
    return [_describe(listed[name]) for name in _share(params, listed)]


def _share(params: LoadRawParams, names: Iterable[str]) -> list[str]:
    if params.batch is None:
        return list(names)
    recipe = load_recipe_class(params.recipe) if params.recipe else Recipe
    return share(names, recipe.raw_glob, params.batch, params.batches)


def _list(source: str) -> list[_Listed]:
    if urlsplit(source).password:
        shown = source.replace(f":{urlsplit(source).password}@", ":…@")
        raise BadInput(
            f"{shown}: a password must not stand in a source; put it into fsspec's configuration or the environment"
        )
    try:
        fs, path = fsspec.url_to_fs(source)
    except (ValueError, ImportError) as error:
        raise BadInput(f"source {source!r}: {error}") from error
    magic = any(character in path for character in "*?[")
    try:
        if magic:
            paths = sorted(each for each, info in fs.glob(path, detail=True).items() if info["type"] != "directory")
            root = str(PurePosixPath(path[: min(path.index(c) for c in "*?[" if c in path)] + "x").parent)
        elif fs.isdir(path):
            paths, root = sorted(_files_below(fs, path)), path
        else:
            paths, root = ([path] if fs.exists(path) else []), str(PurePosixPath(path).parent)
    except OSError as error:
        raise BadInput(f"source {source!r} cannot be listed: {error}") from error
    if not paths:
        raise BadInput(
            f"source {source!r} holds no file; check the path or pattern, and that the node running the task sees it"
        )
    return [_Listed(fs, each, _name_below(root, each)) for each in paths]


def _files_below(fs: fsspec.AbstractFileSystem, folder: str) -> Iterator[str]:
    """Every file below a folder. On a local disk by names alone: each batch of a survey lists all of its files."""
    if not isinstance(fs, LocalFileSystem):
        yield from fs.find(folder)
        return
    for each, _, names in os.walk(folder, followlinks=True):
        yield from (f"{each.rstrip('/')}/{name}" for name in names)


def _name_below(root: str, path: str) -> str:
    above = root.rstrip("/") + "/"
    name = path.removeprefix(above) if path.startswith(above) else PurePosixPath(path).name
    if ".." in name.split("/") or name.startswith("/"):
        raise BadInput(f"source {path!r} has an unsafe name {name!r}")
    return name


def _describe(file: _Listed) -> _Found:
    try:
        info = file.fs.info(file.path)
    except OSError as error:
        raise BadInput(f"source {file.source!r} cannot be looked at: {error}") from error
    state = [f"{key}={info[key]}" for key in _STATE_KEYS if info.get(key) is not None]
    return _Found(source=file.source, name=file.name, size=info.get("size"), state=state)


def _copy(file: _Found, folder: Path) -> dict[str, Any]:
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with fsspec.open(file.source, "rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        size = target.stat().st_size
        if size == 0:
            raise BadInput("the file is empty")
        if file.size is not None and size != file.size:
            raise BadInput(f"the source says {file.size} bytes, {size} arrived")
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return _row(target, file.name, file.source)


def _make_sample(context: Context, params: LoadRawParams, name: str) -> dict[str, Path]:
    out = context.folder(f"sample-{name}")
    load_recipe(params.recipe, params.settings).sample(name, out, params.seed)
    return {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}


def _into(folder: Path, path: Path, name: str, source: str) -> dict[str, Any]:
    target = folder / name
    if target.exists():
        raise BadInput(f"two sources have the name {name!r}; load them in two tasks")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    return _row(target, name, source)


def _row(target: Path, name: str, source: str) -> dict[str, Any]:
    return {"name": name, "source": source, "size": target.stat().st_size, "sha256": hash_file(target)}

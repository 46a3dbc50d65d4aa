"""load_raw: bring raw files from anywhere into the archive, each with its checksum."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec

from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.parameters import LoadRawParams
from dlg_ml_tasks.tasks.recipe import load_recipe, load_recipe_class
from dlg_ml_tasks.tracking.files import hash_file

RAW = "raw"
_SAMPLE = "sample:"
# What file systems report about a file that changes when its content does.
_STATE_KEYS = ("size", "mtime", "LastModified", "last_modified", "created", "ETag", "etag", "checksum", "modify")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    source: str
    path: str
    name: str
    size: int | None
    state: list[str]


def resolve(params: LoadRawParams, inputs: Mapping[str, Any]) -> Any:
    """What the sources hold now: every file with its size and version. Raises BadInput if a source holds nothing."""
    for source in params.sources:
        if source.startswith(_SAMPLE):
            if not params.recipe:
                raise BadInput(f"source {source!r} needs the parameter 'recipe' to say whose sample data it is")
            load_recipe(params.recipe, params.settings)
    found = [file for source in _remote(params) for file in _list(source)]
    _refuse_equal_names(found)
    return [[file.source, file.name, file.state] for file in found]


def uses(params: LoadRawParams) -> Sequence[object]:
    """The recipe's code decides only what 'sample:' sources hold."""
    return [load_recipe_class(params.recipe)] if any(s.startswith(_SAMPLE) for s in params.sources) else []


def perform(context: Context, params: LoadRawParams) -> Result:
    """Copy every source into the archive as the artifact `raw`, with a table of checksums in `sources.json`."""
    folder = context.folder(RAW)
    table: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for source in params.sources:
        if source.startswith(_SAMPLE):
            context.run.progress(f"making {source}")
            made = _make_sample(context, params, source.removeprefix(_SAMPLE))
            table += [_into(folder, path, name, source) for name, path in made]
    found = [file for source in _remote(params) for file in _list(source)]
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
    if not table:
        raise BadInput(f"no file of {params.sources} could be loaded: {skipped}")
    listing = context.work / "sources.json"
    listing.write_text(json.dumps({"files": table, "skipped": skipped}, indent=2))
    context.run.log_file(listing)
    reference = context.run.log_files(folder, RAW, context.fingerprint)
    size = sum(row["size"] for row in table)
    return Result(reference, {"files": len(table), "bytes": size, "skipped": len(skipped)})


def _remote(params: LoadRawParams) -> list[str]:
    return [source for source in params.sources if not source.startswith(_SAMPLE)]


def _list(source: str) -> list[_Found]:
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
            paths = sorted(p for p in fs.glob(path) if not fs.isdir(p))
            root = str(PurePosixPath(path[: min(path.index(c) for c in "*?[" if c in path)] + "x").parent)
        elif fs.isdir(path):
            paths, root = sorted(fs.find(path)), path
        else:
            paths, root = ([path] if fs.exists(path) else []), str(PurePosixPath(path).parent)
    except OSError as error:
        raise BadInput(f"source {source!r} cannot be listed: {error}") from error
    if not paths:
        raise BadInput(
            f"source {source!r} holds no file; check the path or pattern, and that the node running the task sees it"
        )
    return [_describe(fs, each, root) for each in paths]


def _describe(fs: fsspec.AbstractFileSystem, path: str, root: str) -> _Found:
    info = fs.info(path)
    name = (
        str(PurePosixPath(path).relative_to(root))
        if path.startswith(root.rstrip("/") + "/")
        else PurePosixPath(path).name
    )
    if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        raise BadInput(f"source {path!r} has an unsafe name {name!r}")
    state = [f"{key}={info[key]}" for key in _STATE_KEYS if info.get(key) is not None]
    return _Found(fs.unstrip_protocol(path), path, name, info.get("size"), state)


def _refuse_equal_names(found: Sequence[_Found]) -> None:
    seen: dict[str, str] = {}
    for file in found:
        if file.name in seen:
            raise BadInput(
                f"two sources have the name {file.name!r}: {seen[file.name]} and {file.source}; load them in two tasks"
            )
        seen[file.name] = file.source


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


def _make_sample(context: Context, params: LoadRawParams, name: str) -> list[tuple[str, Path]]:
    out = context.folder(f"sample-{name}")
    load_recipe(params.recipe, params.settings).sample(name, out, params.seed)
    return [(path.relative_to(out).as_posix(), path) for path in sorted(out.rglob("*")) if path.is_file()]


def _into(folder: Path, path: Path, name: str, source: str) -> dict[str, Any]:
    target = folder / name
    if target.exists():
        raise BadInput(f"two sources have the name {name!r}; load them in two tasks")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    return _row(target, name, source)


def _row(target: Path, name: str, source: str) -> dict[str, Any]:
    return {"name": name, "source": source, "size": target.stat().st_size, "sha256": hash_file(target)}

"""What every file system on an archive does in its own way, the archive itself and the cache before it."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from fsspec.core import has_magic
from fsspec.implementations.local import make_path_posix, trailing_sep
from fsspec.spec import AbstractFileSystem
from fsspec.utils import other_paths

from dlg_ml_tasks.archive.files import NgasTextWriter

Info = dict[str, Any]
Pairs = list[tuple[Any, Any]]


class ArchiveBehaviour(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's verbs where fsspec's own would guess: an archive that cannot be asked is not an empty one."""

    def exists(self, path: str, **_: Any) -> bool:
        """Unlike fsspec's own, this and `isfile` and `isdir` raise when the archive cannot say."""
        return self._kind(path) is not None

    def isfile(self, path: str) -> bool:
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        return self._kind(path) == "directory"

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Like fsspec's, but by default omits only what is not there."""
        return super().walk(path, maxdepth, topdown, on_error or _raise_unless_missing, **kwargs)  # type: ignore[no-any-return]

    def expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> list[str]:
        """Like fsspec's, but a name with `*`, `?` or `[` that exists means itself."""
        if isinstance(path, str | PathLike) and not kwargs.get("assume_literal"):
            literal = self._strip_protocol(path)
            if set("*?[") & set(literal) and self.exists(literal):
                kwargs["assume_literal"] = True
                path = [literal]
        return super().expand_path(path, recursive, maxdepth, **kwargs)  # type: ignore[no-any-return]

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """Like fsspec's, but `recursive` is about the files in directories, and does not stumble on the directories."""
        if recursive:
            maxdepth = kwargs.pop("maxdepth", None)
            files: list[str] = []
            for one in self.expand_path(path):
                below = self.find(one, maxdepth=maxdepth)
                if not below:
                    self.info(one)  # raises unless it is an empty directory
                files += below
            if not files:
                return {}
            path, kwargs["assume_literal"] = files, True
        # Not super(): fsspec's caches fetch in their own way what must come through `open` here.
        return AbstractFileSystem.cat(self, path, on_error=on_error, **kwargs)

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """Modes r, w and x, binary or text. Not a: what is archived does not change.

        Raises NotImplementedError for `compression` when writing; `fsspec.open` does that.
        """
        writing = "r" not in mode
        if writing and kwargs.get("compression") is not None:
            raise NotImplementedError("write compressed files with fsspec.open(url, compression=...)")
        if writing and "b" not in mode:
            text = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
            return NgasTextWriter(super().open(path, f"{mode.replace('t', '')}b", **kwargs), **text)
        return super().open(path, mode, **kwargs)

    def _kind(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None


class TransferPlan:
    """Stands in for a file system while fsspec works out which path goes where, and takes down the pairs."""

    def __init__(self, fs: AbstractFileSystem) -> None:
        self._fs = fs
        self._pairs: Pairs = []

    @classmethod
    def of_get(cls, fs: AbstractFileSystem, rpath: Any, lpath: Any, **options: Any) -> Pairs:
        """Pairs of a remote and a local path. Local directories are made on the way."""
        plan = cls(fs)
        if isinstance(rpath, str) and has_magic(rpath) and options.get("recursive") and fs.isdir(rpath):
            # fsspec would take the name for a pattern, and an empty directory for a file.
            rpath, lpath = _below(fs, rpath, lpath, options)
        AbstractFileSystem.get(plan, rpath, lpath, **options)
        return [(fs._strip_protocol(remote), local) for remote, local in plan._pairs]

    @classmethod
    def of_put(cls, fs: AbstractFileSystem, lpath: Any, rpath: Any, **options: Any) -> Pairs:
        """Pairs of a local and a remote path."""
        plan = cls(fs)
        AbstractFileSystem.put(plan, lpath, rpath, **options)
        return [(local, fs._strip_protocol(remote)) for local, remote in plan._pairs]

    @classmethod
    def of_copy(cls, fs: AbstractFileSystem, path1: Any, path2: Any, **options: Any) -> Pairs:
        """Pairs of a source and a target path."""
        plan = cls(fs)
        AbstractFileSystem.copy(plan, path1, path2, on_error="raise", **options)
        return [(fs._strip_protocol(source), fs._strip_protocol(target)) for source, target in plan._pairs]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def put_file(self, source: Any, target: Any, **_: Any) -> None:
        self._pairs.append((source, target))

    get_file = cp_file = put_file


def _below(fs: AbstractFileSystem, directory: str, local: str, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is in a directory, itself included, and the local paths that it goes to by fsspec's rules."""
    paths = fs.expand_path(directory, **options)
    local = make_path_posix(local)
    inside = (trailing_sep(local) or Path(local).is_dir()) and not trailing_sep(directory)
    return paths, other_paths(paths, local, exists=inside)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error

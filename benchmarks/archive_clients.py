"""The client processes of benchmarks/archive.py: bare HTTP, ngamsPClient, and MLflow's artifact repositories."""

from __future__ import annotations

import base64
import contextlib
import http.client
import multiprocessing
import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

MIB = 1 << 20
ATTEMPTS = 50
"""How often a request is tried: a real NGAS drops connections whenever MaxSimReqs are being served, and on SQLite it refuses
some concurrent uploads with "cannot commit transaction"."""


class Span(NamedTuple):
    """When the work of one process began and ended, on the clock that all processes share (seconds), and how many
    requests had to be repeated."""

    begin: float
    end: float
    repeated: int = 0


class Refused(Exception):
    """The server did not do what it was asked."""


class Target(NamedTuple):
    """An NGAS server."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"ngas://{self.host}:{self.port}"


class Name(NamedTuple):
    """The two names of one NGAS file."""

    file_id: str
    filename: str


class Clients:
    """Processes that wait for work. Starting them, with all their imports, is no part of what is measured."""

    def __init__(self, count: int) -> None:
        # A forked child would inherit locks of whatever threads run here.
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join()

    @property
    def pid(self) -> int:
        """Process id of the first."""
        pid = self._processes[0].pid
        assert pid is not None
        return pid

    def each(self, function: Callable[..., Any], *arguments: tuple[Any, ...]) -> list[Any]:
        """Call `function` in all processes at once, in each with its own arguments; returns what they gave."""
        busy = self._ends[: len(arguments)]
        for end, one in zip(busy, arguments, strict=True):
            end.send((function, one))
        return [_result(end) for end in busy]

    def one(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` in the first process."""
        return self.each(function, arguments)[0]


def _work(orders: Connection) -> None:
    with orders, contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            function, arguments = orders.recv()
            try:
                orders.send((True, function(*arguments)))
            except Exception:  # noqa: BLE001  the parent raises it
                orders.send((False, traceback.format_exc()))


def _result(end: Connection) -> Any:
    well, value = end.recv()
    if not well:
        raise RuntimeError(f"a client process failed:\n{value}")
    return value


# --- bare HTTP, a new connection for each request, as every NGAS client must do it ---


def archive_files(target: Target, names: Sequence[Name], size: int) -> Span:
    """ARCHIVE random files of `size` bytes, one after another."""
    body = os.urandom(size)
    begin, repeated = time.monotonic(), 0
    for name in names:
        repeated += _repeatedly(target, "POST", _archive_path(name), body).repeated
    return Span(begin, time.monotonic(), repeated)


def archive_large(target: Target, name: Name, size: int) -> Span:
    """ARCHIVE one file of `size` bytes (a multiple of 1 MiB) from memory."""
    block = os.urandom(MIB)
    begin = time.monotonic()
    _exchange(target, "POST", _archive_path(name), [block] * (size // MIB), size)
    return Span(begin, time.monotonic())


def retrieve_files(target: Target, names: Sequence[Name], size: int) -> Span:
    """RETRIEVE files that must have `size` bytes, one after another; the bytes are read and thrown away."""
    begin, repeated = time.monotonic(), 0
    for name in names:
        got = _repeatedly(target, "GET", f"/RETRIEVE?file_id={quote(name.file_id)}")
        if got.length != size:
            raise Refused(f"{name.file_id}: {got.length} bytes instead of {size}")
        repeated += got.repeated
    return Span(begin, time.monotonic(), repeated)


def discard_files(target: Target, names: Sequence[Name]) -> None:
    """Leave nothing of these in the archive."""
    from dlg_ml_tasks.archive import FileNotInArchive, NgasClient

    client = NgasClient(target.host, target.port)
    for name in names:
        with contextlib.suppress(FileNotInArchive):
            client.delete(name.file_id)


def _archive_path(name: Name) -> str:
    return f"/ARCHIVE?filename={quote(name.filename)}&file_id={quote(name.file_id)}&mime_type=application/octet-stream"


def _exchange(target: Target, method: str, path: str, blocks: Sequence[bytes] = (), size: int = 0) -> int:
    """One request on a connection of its own; returns the length of the reply's body."""
    with contextlib.closing(http.client.HTTPConnection(target.host, target.port, timeout=600)) as connection:
        connection.putrequest(method, path)
        for header, value in _authorization().items():
            connection.putheader(header, value)
        if blocks:
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(size))
        # http.client sends a body given here together with the head, in one packet if both are small.
        connection.endheaders(blocks[0] if blocks else None)
        for block in blocks[1:]:
            connection.send(block)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise Refused(f"{path.partition('?')[0]}: HTTP {response.status}: {response.read()[:500]!r}")
        buffer = bytearray(MIB)
        length = 0
        while count := response.readinto(buffer):
            length += count
        return length


class _Got(NamedTuple):
    length: int
    repeated: int


def _repeatedly(target: Target, method: str, path: str, body: bytes = b"") -> _Got:
    for attempt in range(ATTEMPTS):
        try:
            return _Got(_exchange(target, method, path, [body] if body else (), len(body)), attempt)
        except (OSError, http.client.HTTPException, Refused) as error:
            last = error
    raise Refused(f"{path.partition('?')[0]} failed {ATTEMPTS} times: {last}")


def _authorization() -> dict[str, str]:
    user = os.environ.get("DLG_ML_NGAS_USER")
    if not user:
        return {}
    pair = f"{user}:{os.environ.get('DLG_ML_NGAS_PASSWORD', '')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


# --- the client that comes with NGAS ---


def has_ngams_client() -> bool:
    """Whether `ngamsPClient` can be imported here."""
    try:
        import_module("ngamsPClient.ngamsPClient")
    except ImportError:
        return False
    return True


def ngams_archive(target: Target, names: Sequence[Name], file: str) -> Span:
    """ARCHIVE a local file under each of the names with ngamsPClient."""
    client = _ngams_client(target)
    content = Path(file)
    begin = time.monotonic()
    for name in names:
        with content.open("rb") as stream:
            status = client.archive_data(
                stream, name.filename, "application/octet-stream", pars=[("file_id", name.file_id)]
            )
        if status.getStatus() != "SUCCESS":
            raise Refused(f"ngamsPClient: {status.getMessage()}")
    return Span(begin, time.monotonic())


def ngams_retrieve(target: Target, names: Sequence[Name], destination: str) -> Span:
    """RETRIEVE files with ngamsPClient to one local file, which each replaces."""
    client = _ngams_client(target)
    begin = time.monotonic()
    for name in names:
        status = client.retrieve(name.file_id, targetFile=destination)
        if status.getStatus() != "SUCCESS":
            raise Refused(f"ngamsPClient: {status.getMessage()}")
    return Span(begin, time.monotonic())


def _ngams_client(target: Target) -> Any:
    from ngamsPClient.ngamsPClient import ngamsPClient

    return ngamsPClient(target.host, target.port, timeout=600)


# --- MLflow's artifact repositories: ours, or the tracking server's ---


class Location(NamedTuple):
    """An artifact location, with the tracking server if it is one behind it."""

    uri: str
    tracking: str | None = None

    def below(self, name: str) -> Location:
        return Location(f"{self.uri}/{name}", self.tracking)


def upload(location: Location, source: str) -> Span:
    """Log a file, or a folder."""
    repository = _repository(location)
    begin = time.monotonic()
    if Path(source).is_dir():
        repository.log_artifacts(source)
    else:
        repository.log_artifact(source)
    return Span(begin, time.monotonic())


def download(location: Location, path: str, destination: str) -> Span:
    """Fetch a file, or with an empty path everything, into a new folder `destination`."""
    Path(destination).mkdir()
    repository = _repository(location)
    begin = time.monotonic()
    repository.download_artifacts(path, destination)
    return Span(begin, time.monotonic())


def delete(location: Location) -> None:
    """Delete everything at a location."""
    _repository(location).delete_artifacts()


def listing(location: Location, path: str, expected: int, times: int) -> list[float]:
    """Seconds that each of some listings of one directory takes."""
    repository = _repository(location)
    taken = []
    for _ in range(times):
        begin = time.monotonic()
        found = len(repository.list_artifacts(path))
        taken.append(time.monotonic() - begin)
        if found != expected:
            raise Refused(f"{path}: {found} entries instead of {expected}")
    return taken


def _repository(location: Location) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location.uri, tracking_uri=location.tracking)


# --- memory ---


def forget_peak(pid: int) -> int:
    """Resident bytes of a process at present, from which on its peak is counted anew (Linux)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _memory(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most resident bytes of a process since `forget_peak`."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} tells no {field}")


def same_content(first: Path, second: Path) -> bool:
    """Whether two files, or the files directly in two folders, have the same bytes."""
    if first.is_dir():
        names = sorted(path.name for path in first.iterdir())
        return names == sorted(path.name for path in second.iterdir()) and all(
            same_content(first / name, second / name) for name in names
        )
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while block := one.read(MIB):
            if block != other.read(MIB):
                return False
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

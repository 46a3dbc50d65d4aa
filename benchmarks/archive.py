"""Measure the embedded server, the client and the MLflow plugin against MLflow's artifact proxy and a real NGAS.

    python benchmarks/archive.py                              all rows; 15 minutes and 15 GB of disk below --folder
    python benchmarks/archive.py --quick                      does it work? (the figures mean nothing)
    python benchmarks/archive.py --url ngas://host:7777       a real NGAS too; what is stored there is discarded again
    python benchmarks/archive.py --write docs/benchmarks-archive.md

Client and server run on one machine; a figure is the median of the runs. Peers are measured in the same run, turn about.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from archive_clients import (
    MIB,
    Clients,
    Location,
    Name,
    Span,
    Target,
    archive_files,
    archive_large,
    delete,
    discard_files,
    download,
    forget_peak,
    has_ngams_client,
    listing,
    ngams_archive,
    ngams_retrieve,
    peak,
    remove,
    retrieve_files,
    same_content,
    upload,
)

from dlg_ml_tasks.archive import naming, split_url

CLIENTS = 8
START_SECONDS = 180

# NGAS 12.0 with its sample configuration (SQLite, MaxSimReqs=10) on a machine with two cores, client on the same machine,
# measured by the method of archive_clients.py. With --url they are measured instead.
REAL_SERVER = {
    "1 KiB ARCHIVE": 62.0,  # files/s, 8 clients
    "1 KiB RETRIEVE": 900.0,
    "large ARCHIVE": 240.0,  # MB/s, 1 client, 256 MiB
    "large RETRIEVE": 1400.0,
}

EMBEDDED, PROXY, NGAMS = "embedded server", "MLflow's proxy", "ngamsPClient"


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    runs: int = 5
    small_files: int = 200  # of each client in each run
    large: int = 256 * MIB
    folder_files: int = 1000
    file: int = 1024 * MIB
    few_files: int = 1_000  # in the archive, for the listing
    many_files: int = 100_000
    listings: int = 50
    passing: int = 4096 * MIB  # for the memory


QUICK = Sizes(2, 10, 16 * MIB, 100, 64 * MIB, 100, 1_000, 10, 256 * MIB)


@dataclass
class Row:
    """One line of the table. `samples`: the figures of each run by column; `needed`: what the first column must reach."""

    measure: str
    unit: str
    needed: Callable[[Row], float] | float
    at_most: bool = False
    samples: dict[str, list[float]] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)

    def add(self, column: str, value: float) -> None:
        self.samples.setdefault(column, []).append(value)

    def add_rate(self, column: str, amount: float, spans: Sequence[Span]) -> None:
        """`amount` of the unit was moved in these spans."""
        self.add(column, amount / (max(span.end for span in spans) - min(span.begin for span in spans)))
        if repeats := sum(span.repeated for span in spans):
            self.repeated[column] = self.repeated.get(column, 0) + repeats

    def figure(self, column: str) -> float | None:
        """The median of a column; None if it was not measured."""
        return median(self.samples[column]) if column in self.samples else None

    @property
    def limit(self) -> float:
        return self.needed(self) if callable(self.needed) else self.needed

    @property
    def holds(self) -> bool:
        figure = self.figure(EMBEDDED)
        assert figure is not None
        return figure <= self.limit if self.at_most else figure >= self.limit


@dataclass(frozen=True)
class Server:
    """An NGAS server that is measured: the embedded one, or the one of --url, whose process is elsewhere."""

    column: str
    target: Target
    pid: int | None = None


def main() -> None:
    """Run the benchmark and print the table."""
    options = parse()
    # Told to end, it stops the servers first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sizes = QUICK if options.quick else Sizes()
    # What a user may have set would be measured instead of the defaults.
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DLG_ML_NGAS_CACHE", "DLG_ML_NGAS_PACK"))]:
        del os.environ[name]
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with tempfile.TemporaryDirectory(prefix="bench-archive-", dir=options.folder) as folder:
        rows = measure(Path(folder), sizes, options.url)
    report = {
        "quick": options.quick,
        "machine": machine(),
        "sizes": asdict(sizes),
        "real_server": REAL_SERVER if options.url is None else options.url,
        "rows": [
            {
                "measure": row.measure,
                "unit": row.unit,
                "needed": row.limit,
                "holds": row.holds,
                "samples": row.samples,
                "repeated": row.repeated,
            }
            for row in rows
        ],
    }
    text = table(rows, sizes, quick=options.quick)
    print(text)
    if options.write:
        options.write.write_text(text)
        options.write.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--url", help="a real NGAS, ngas://host:port, to measure as well")
    parser.add_argument(
        "--folder", type=Path, help="where files and the embedded archive go; choose the disk to measure"
    )
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table there, and FILE.json beside it")
    return parser.parse_args()


def measure(folder: Path, sizes: Sizes, url: str | None) -> list[Row]:
    """All rows."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(embedded_server(folder / "ngas"))]
        if url is not None:
            address, _ = split_url(url)
            servers.append(Server(f"NGAS at {address}", Target(*address)))
        clients = stack.enter_context(Clients(CLIENTS))
        rows = [*small_files(servers, clients, sizes, folder), *large_file(servers, clients, sizes, folder)]

        # One uploads and another downloads, so that nothing is known beforehand.
        writer, reader = (stack.enter_context(Clients(1)) for _ in range(2))
        proxy = Location("mlflow-artifacts:", stack.enter_context(artifact_proxy(folder / "proxy")))
        rows += folder_of_files(servers, proxy, writer, reader, sizes, folder)
        rows += one_file(servers, proxy, writer, reader, sizes, folder)
    # In new processes: what earlier work made them keep would count as idle.
    with embedded_server(folder / "ngas-memory") as server, Clients(1) as writer, Clients(1) as reader:
        rows += memory([server, *servers[1:]], writer, reader, sizes, folder)
    with (
        embedded_server(folder / "ngas-few") as few,
        embedded_server(folder / "ngas-many") as many,
        Clients(CLIENTS) as clients,
    ):
        rows += listings(few, many, clients, sizes)
    return rows


# --- the server alone ---


def small_files(servers: list[Server], clients: Clients, sizes: Sizes, folder: Path) -> list[Row]:
    """1 KiB files by 8 clients."""
    archive = Row(f"1 KiB ARCHIVE, {CLIENTS} clients", "files/s", lambda row: 10 * real(servers, row, "1 KiB ARCHIVE"))
    retrieve = Row(
        f"1 KiB RETRIEVE, {CLIENTS} clients", "files/s", lambda row: 2 * real(servers, row, "1 KiB RETRIEVE")
    )
    source = folder / "1KiB"
    source.write_bytes(os.urandom(1024))
    total = CLIENTS * sizes.small_files
    for _ in range(sizes.runs):
        for server in servers:
            names = [new_names(sizes.small_files) for _ in range(CLIENTS)]
            settle()
            work = [(server.target, mine, 1024) for mine in names]
            archive.add_rate(server.column, total, clients.each(archive_files, *work))
            retrieve.add_rate(server.column, total, clients.each(retrieve_files, *work))
            clean(server, clients, names)
        if has_ngams_client():
            target = servers[0].target
            names = [new_names(sizes.small_files) for _ in range(CLIENTS)]
            settle()
            uploads = [(target, mine, str(source)) for mine in names]
            downloads = [(target, mine, str(folder / f"got{client}")) for client, mine in enumerate(names)]
            archive.add_rate(NGAMS, total, clients.each(ngams_archive, *uploads))
            retrieve.add_rate(NGAMS, total, clients.each(ngams_retrieve, *downloads))
    return [archive, retrieve]


def large_file(servers: list[Server], clients: Clients, sizes: Sizes, folder: Path) -> list[Row]:
    """One large file by one client."""
    name = f"{sizes.large // MIB} MiB"
    archive = Row(f"{name} ARCHIVE, 1 client", "MB/s", lambda row: real(servers, row, "large ARCHIVE"))
    retrieve = Row(f"{name} RETRIEVE, 1 client", "MB/s", lambda row: real(servers, row, "large RETRIEVE"))
    megabytes = sizes.large / 1e6
    source = folder / "large"
    random_file(source, sizes.large)
    for _ in range(sizes.runs):
        for server in servers:
            [file] = new_names(1)
            settle()
            archive.add_rate(server.column, megabytes, [clients.one(archive_large, server.target, file, sizes.large)])
            retrieve.add_rate(
                server.column, megabytes, [clients.one(retrieve_files, server.target, [file], sizes.large)]
            )
            clean(server, clients, [[file]])
        if has_ngams_client():
            target = servers[0].target
            names = new_names(1)
            settle()
            archive.add_rate(NGAMS, megabytes, [clients.one(ngams_archive, target, names, str(source))])
            retrieve.add_rate(NGAMS, megabytes, [clients.one(ngams_retrieve, target, names, str(folder / "got"))])
            if not same_content(source, folder / "got"):
                raise RuntimeError("ngamsPClient fetched other bytes than it sent")
    return [archive, retrieve]


def real(servers: list[Server], row: Row, what: str) -> float:
    """What a real server does: measured in this run with --url, else the recorded figure."""
    measured = row.figure(servers[-1].column) if len(servers) > 1 else None
    return REAL_SERVER[what] if measured is None else measured


# --- MLflow's artifacts ---


def folder_of_files(
    servers: list[Server], proxy: Location, writer: Clients, reader: Clients, sizes: Sizes, folder: Path
) -> list[Row]:
    """Many small files in one folder."""
    source = folder / "many"
    source.mkdir()
    for number in range(sizes.folder_files):
        (source / f"{number:05}.bin").write_bytes(os.urandom(4096))
    name = f"plugin, {sizes.folder_files} x 4 KiB"
    return transfers(servers, proxy, writer, reader, sizes, source, name, sizes.folder_files, "files/s", 10)


def one_file(
    servers: list[Server], proxy: Location, writer: Clients, reader: Clients, sizes: Sizes, folder: Path
) -> list[Row]:
    """One large file."""
    source = folder / "one"
    random_file(source, sizes.file)
    name = f"plugin, {sizes.file // MIB} MiB"
    return transfers(servers, proxy, writer, reader, sizes, source, name, sizes.file / 1e6, "MB/s", 1.5)


def transfers(
    servers: list[Server],
    proxy: Location,
    writer: Clients,
    reader: Clients,
    sizes: Sizes,
    source: Path,
    name: str,
    amount: float,
    unit: str,
    factor: float,
) -> list[Row]:
    """Uploads and downloads of `source`, which is `amount` of something, straight to the archive and through the proxy."""

    def needed(row: Row) -> float:
        return factor * (row.figure(PROXY) or 0.0)

    up, down = Row(f"{name} up", unit, needed), Row(f"{name} down", unit, needed)
    places = {server.column: Location(server.target.url) for server in servers} | {PROXY: proxy}
    for _ in range(sizes.runs):
        for column, place in places.items():
            location = place.below(f"bench-{uuid.uuid4().hex}")
            destination = source.with_name("downloaded")
            path = "" if source.is_dir() else source.name
            settle()
            up.add_rate(column, amount, [writer.one(upload, location, str(source))])
            settle()
            down.add_rate(column, amount, [reader.one(download, location, path, str(destination))])
            if not same_content(source, destination / path):
                raise RuntimeError(f"{column}: other bytes came back than were sent")
            remove(destination)
            writer.one(delete, location)
    return [up, down]


def listings(few: Server, many: Server, clients: Clients, sizes: Sizes) -> list[Row]:
    """A directory of 10 files in an archive of few and in one of many, turn about."""
    rows = []
    archives = [(few, sizes.few_files), (many, sizes.many_files)]
    locations = [Location(f"{server.target.url}/listed") for server, _ in archives]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(10):
            (Path(folder) / f"{number}.bin").write_bytes(b"x")
        for location, (server, total) in zip(locations, archives, strict=True):
            clients.one(upload, location, folder)
            fill(server, clients, total - 10)
            clients.one(listing, location, "", 10, 5)
            rows.append(Row(f"listing 10 files among {total}", "ms", 20.0, at_most=True))
    for _ in range(sizes.runs):
        for row, location in zip(rows, locations, strict=True):
            row.add(EMBEDDED, 1e3 * median(clients.one(listing, location, "", 10, sizes.listings)))
    # No slower among many, within the scatter of the runs: not slower than the slowest run among few.
    rows[1].needed = lambda row: min(20.0, max(rows[0].samples[EMBEDDED]))
    return rows


def fill(server: Server, clients: Clients, count: int) -> None:
    """Archive `count` small files, a hundred in each directory."""
    names = [Name(*naming.object_name(f"/filled/{n // 100}/{n % 100}.bin", naming.Kind.FILE)) for n in range(count)]
    clients.each(archive_files, *((server.target, names[first::CLIENTS], 64) for first in range(CLIENTS)))


def memory(servers: list[Server], writer: Clients, reader: Clients, sizes: Sizes, folder: Path) -> list[Row]:
    """Memory above idle of both ends while a large file goes up and comes down."""
    source, warming = folder / "passing", folder / "warming"
    random_file(source, sizes.passing)
    random_file(warming, MIB)
    name = f"{sizes.passing // MIB} MiB"
    rows = {
        who: Row(f"memory above idle, {name}: {who}", "MiB", 64.0, at_most=True)
        for who in ("client up", "server up", "client down", "server down")
    }
    for server in servers:
        location = Location(server.target.url).below(f"bench-{uuid.uuid4().hex}")
        # Everything is imported, every pool is made.
        writer.one(upload, location, str(warming))
        reader.one(download, location, warming.name, str(folder / "warmed"))
        remove(folder / "warmed")
        for way, client, work in (
            ("up", writer, (upload, location, str(source))),
            ("down", reader, (download, location, source.name, str(folder / "passed"))),
        ):
            watched = {f"client {way}": client.pid} | ({f"server {way}": server.pid} if server.pid else {})
            idle = {who: forget_peak(pid) for who, pid in watched.items()}
            client.one(*work)
            for who, pid in watched.items():
                rows[who].add(server.column, (peak(pid) - idle[who]) / MIB)
        if not same_content(source, folder / "passed" / source.name):
            raise RuntimeError(f"{server.column}: other bytes came back than were sent")
        remove(folder / "passed")
        writer.one(delete, location)
    remove(source)
    return list(rows.values())


# --- servers ---


@contextlib.contextmanager
def embedded_server(root: Path) -> Iterator[Server]:
    """The embedded server in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "dlg_ml_tasks.archive.server", "--root", str(root), "--port", str(port)]
    with running(command, root.parent, root.with_suffix(".log"), f"http://127.0.0.1:{port}/STATUS") as pid:
        yield Server(EMBEDDED, Target("127.0.0.1", port), pid)


@contextlib.contextmanager
def artifact_proxy(folder: Path) -> Iterator[str]:
    """URL of a tracking server that keeps its clients' artifacts in a local folder."""
    folder.mkdir()
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        # More workers would cost each request on a kept connection 40 ms (delayed acknowledgement).
        *("--workers", "1", "--uvicorn-opts", "--no-access-log"),
        *("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", str(folder / "artifacts")),
    ]
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(command, folder, folder / "server.log", f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def running(command: list[str], folder: Path, log: Path, url: str) -> Iterator[int]:
    """Start a server in `folder`, wait until it answers, and stop it in the end; gives its process id."""
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} does not answer:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield server.pid
    finally:
        # MLflow's workers are children of its command; all are in the session made for them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait()


def answers(url: str) -> bool:
    """Whether there is a server at a URL."""
    try:
        with urlopen(url, timeout=5):
            return True
    except (URLError, OSError):
        return False


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def new_names(count: int) -> list[Name]:
    """Names that no file has."""
    batch = f"bench-{uuid.uuid4().hex[:12]}"
    return [Name(f"{batch}-{number}", f"{batch}-{number}.bin") for number in range(count)]


def clean(server: Server, clients: Clients, names: list[list[Name]]) -> None:
    """Leave nothing in an archive that stays."""
    if server.pid is None:
        clients.each(discard_files, *((server.target, mine) for mine in names))


def random_file(path: Path, size: int) -> None:
    """A file of `size` random bytes, a multiple of 1 MiB."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))


def settle() -> None:
    """Let the disk finish what earlier steps left to do, so that it is not paid for by the next."""
    os.sync()


# --- the report ---


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    cpu = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else [platform.processor()]
    packages = ("dlg-ml-tasks", "mlflow", "fsspec", "requests", "aiohttp")
    return {
        "cpu": models[0],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def table(rows: list[Row], sizes: Sizes, *, quick: bool) -> str:
    """The rows as Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row.samples))
    about = machine()
    lines = [
        f"{about['cores']} cores of {about['cpu']}, client and server on one machine, median of {sizes.runs} runs; memory: one "
        "transfer each way.",
        "",
        f"| measure | unit | needed | {' | '.join(columns)} | holds |",
        f"|---|---|---|{'---|' * len(columns)}---|",
    ]
    for row in rows:
        needed = f"{'≤' if row.at_most else '≥'} {number(row.limit)}"
        figures = " | ".join(number(row.figure(column)) for column in columns)
        lines.append(f"| {row.measure} | {row.unit} | {needed} | {figures} | {'yes' if row.holds else '**no**'} |")
    lines += [
        f"\n{row.measure}, {column}: {count} requests of all runs were refused or dropped, and repeated."
        for row in rows
        for column, count in row.repeated.items()
    ]
    if quick:
        lines += ["", "Made with --quick: it shows that the benchmark works; the figures mean nothing."]
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """A figure with as many digits as mean something."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    main()

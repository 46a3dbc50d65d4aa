"""Measure the results site: pages of a tracking store with ten thousand runs, the first page, downloads, and memory.

    python benchmarks/web.py                                  all rows; about three minutes and 1 GB of disk below --folder
    python benchmarks/web.py --quick                          does it work? (the figures mean nothing)
    python benchmarks/web.py --write docs/benchmarks-web.md

A real MLflow server, the embedded archive, the site, and the clients run on one machine. The runs of the store are copies of a few
that were made by MLflow's client, put into its database at once. Pages are asked for by 20 connections at a time, each with its
next request as soon as it has its answer; a download into a file is compared with RETRIEVE by the same client, turn about, in the
same run, and likewise one whose bytes are thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import aiohttp
import psutil
from archive import embedded_server, free_port, machine, number, running
from archive_clients import MIB, forget_peak, peak

AT_A_TIME = 20
DOWNLOADS = 50
WAIT_S = 600


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    runs: int = 10_000
    versions: int = 20
    requests: int = 1_000  # for each page
    large: int = 256 * MIB
    transfers: int = 7
    in_flight_s: float = 15.0


QUICK = Sizes(300, 3, 60, 16 * MIB, 2, 2.0)


@dataclass
class Row:
    """One line of the table. `detail` says how it came about."""

    measure: str
    unit: str
    needed: float | None
    measured: float
    at_most: bool = True
    detail: str = ""

    @property
    def holds(self) -> bool | None:
        if self.needed is None:
            return None
        return self.measured <= self.needed if self.at_most else self.measured >= self.needed


@dataclass(frozen=True)
class Store:
    """What the tracking store holds: an inference with the large file, and the ids of all runs."""

    model: str
    large_run: str
    runs: list[str]


@dataclass(frozen=True)
class Site:
    """A site that runs: where, and in which process."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--folder", type=Path, help="where the database and the archive go")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table there, and FILE.json beside it")
    options = parser.parse_args()
    # Told to end, it stops the servers first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sizes = QUICK if options.quick else Sizes()
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DLG_ML_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="bench-web-", dir=options.folder) as folder:
        rows = measure(Path(folder), sizes)
    load = os.getloadavg()[1]
    text = table(rows, sizes, load, quick=options.quick)
    print(text)
    if options.write:
        options.write.write_text(text)
        report = {"quick": options.quick, "machine": machine(), "load": load, "sizes": asdict(sizes)}
        report["rows"] = [{**asdict(row), "holds": row.holds} for row in rows]
        options.write.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, sizes: Sizes) -> list[Row]:
    """All rows."""
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(embedded_server(folder / "ngas"))
        address = f"{archive.target.host}:{archive.target.port}"
        store = make_store(folder / "mlflow.db", f"ngas://{address}/bench", sizes)
        content = make_large(folder / "large.bin", sizes.large)
        file_id = archive_large(address, store.large_run, content)
        tracking = stack.enter_context(tracking_server(folder))
        site = stack.enter_context(running_site(folder, tracking))
        rows = [first_page(site)]
        wait_until_complete(site, sizes)
        rows = [*pages(site, store, sizes), *rows]
        rows += [download(site, store, archive.target.port, file_id, sizes, into) for into in (folder / "came", None)]
        rows.append(memory(site, store, sizes))
    return rows


# --- what is shown ---


def make_store(database: Path, location: str, sizes: Sizes) -> Store:
    """A tracking store: a session's tasks as MLflow's client writes them, copied until there are enough, and a model."""
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

    client = MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")
    experiment = client.create_experiment("bench", artifact_location=location)
    tasks = ("load_raw", "preprocess", "train", "retrain", "promote", "infer")
    made: dict[str, str] = {}
    for task in tasks:
        run_id = made[task] = client.create_run(experiment, run_name=task).info.run_id
        tags = {"dlg_ml.task": task, "dlg_ml.node": task, "dlg_ml.session": "session-0"}
        if task == "infer":
            tags["dlg_ml.model"] = "models:/bench/1"
        steps = range(20 if task in ("train", "retrain") else 1)
        client.log_batch(
            run_id,
            [Metric(f"metric_{index}", 1 / (step + index + 1), 0, step) for index in range(12) for step in steps],
            [Param(f"parameter_{index}", f"value {index}") for index in range(20)],
            [RunTag(name, value) for name, value in tags.items()],
        )
        if len(made) > 1:
            source = json.dumps({"uri": f"runs:/{list(made.values())[-2]}/data"})
            client.log_inputs(run_id, [DatasetInput(Dataset("data-bench", "1", "local", source), [])])
        client.set_terminated(run_id)
    client.create_registered_model("bench", description="A model with many versions.")
    for _ in range(sizes.versions):
        client.create_model_version(
            "bench", f"{location}/model", made["train"], tags={"metric.f1": str(random.random())}
        )
    client.set_registered_model_alias("bench", "champion", "1")
    runs = copy_runs(database, list(made.values()), sizes.runs - len(made))
    return Store("bench", made["infer"], [*made.values(), *runs])


def copy_runs(database: Path, run_ids: list[str], count: int) -> list[str]:
    """Copies of runs with all that belongs to them, a minute apart, the newest first; returns their ids."""
    ids = [uuid.uuid4().hex for _ in range(count)]
    now = int(time.time() * 1000)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table_name, key in (
            *(("runs", "run_uuid"), ("params", "run_uuid"), ("metrics", "run_uuid"), ("latest_metrics", "run_uuid")),
            *(("tags", "run_uuid"), ("inputs", "destination_id")),
        ):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table_name})")]
            found = {
                run_id: connection.execute(f"SELECT * FROM {table_name} WHERE {key} = ?", (run_id,)).fetchall()
                for run_id in run_ids
            }
            rows = []
            for index, copy_id in enumerate(ids):
                for row in found[run_ids[index % len(run_ids)]]:
                    values = {**dict(zip(columns, row, strict=True)), key: copy_id}
                    if table_name == "runs":
                        start = now - 60_000 * (index + 1)
                        values |= {"start_time": start, "end_time": start + 20_000}
                    if table_name == "inputs":
                        values["input_uuid"] = uuid.uuid4().hex
                    if values.get("key") == "dlg_ml.session":
                        values["value"] = f"session-{index // 50}"
                    rows.append(tuple(values.values()))
            connection.executemany(f"INSERT INTO {table_name} VALUES ({', '.join('?' * len(columns))})", rows)
    return ids


def make_large(file: Path, size: int) -> Path:
    """A file of random bytes."""
    block = os.urandom(MIB)
    with file.open("wb") as stream:
        for _ in range(size // MIB):
            stream.write(block)
    return file


def archive_large(address: str, run_id: str, content: Path) -> str:
    """Puts the file among a run's artifacts; returns its id in the archive."""
    from dlg_ml_tasks.archive import NgasClient, naming, parse_address
    from dlg_ml_tasks.archive.tree import NgasTree

    path = f"/bench/{run_id}/artifacts/large.bin"
    NgasTree(NgasClient(*parse_address(address))).store(path, content, None)
    return naming.file_id(path)


# --- what runs ---


@contextlib.contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """URL of an MLflow server of the store."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--uvicorn-opts", "--no-access-log", "--backend-store-uri", "sqlite:///mlflow.db", "--no-serve-artifacts"),
        *("--default-artifact-root", "ngas://127.0.0.1:9/none"),
    ]
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(command, folder, folder / "mlflow.log", f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def running_site(folder: Path, tracking: str) -> Iterator[Site]:
    """The site with an empty cache, without its limit of requests from one address."""
    port = free_port()
    os.environ |= {"MLFLOW_TRACKING_URI": tracking, "DLG_ML_WEB_RATE": "0"}
    command = [sys.executable, "-m", "dlg_ml_tasks.web", "--port", str(port)]
    with running(command, folder, folder / "site.log", f"http://127.0.0.1:{port}/health") as pid:
        yield Site(port, pid)


def wait_until_complete(site: Site, sizes: Sizes) -> None:
    """Wait until the site has read all runs: what it then shows is what is measured."""
    deadline = time.monotonic() + WAIT_S
    while (
        json.loads(fetch(site, "/overview.json"))["runs"] < sizes.runs
        or not json.loads(fetch(site, "/health"))["complete"]
    ):
        if time.monotonic() > deadline:
            raise SystemExit(f"the site did not read {sizes.runs} runs in {WAIT_S} s")
        time.sleep(1)


def fetch(site: Site, path: str) -> bytes:
    """A page, whole."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=WAIT_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise SystemExit(f"{path}: {answer.status}: {body[:300]!r}")
        return body


# --- what is measured ---


def first_page(site: Site) -> Row:
    """The first page that is asked for, as soon as the site takes requests, while it knows nothing yet."""
    began = time.perf_counter()
    page = fetch(site, "/")
    seconds = time.perf_counter() - began
    told = "read for the first time" if b"read for the first time" in page else "with the newest runs"
    return Row("first page with an empty cache", "ms", 1000, 1000 * seconds, detail=told)


def pages(site: Site, store: Store, sizes: Sizes) -> list[Row]:
    """How long pages take when many are asked for at once: the three of the table, and the list of runs at any depth."""
    now = int(time.time() * 1000)
    minutes = range(sizes.runs)
    kinds: dict[str, Callable[[], str]] = {
        "overview": lambda: "/",
        "models": lambda: "/models",
        "page of a model": lambda: f"/models/{store.model}",
        "page of any run": lambda: f"/runs/{random.choice(store.runs)}",
        "list of runs, from anywhere": lambda: f"/runs?after={now - 60_000 * random.choice(minutes)}-{'0' * 32}",
    }
    limits = {"list of runs, from anywhere": None}  # each is another one
    return [page(site, name, path, sizes.requests, limits.get(name, 150)) for name, path in kinds.items()]


def page(site: Site, name: str, path: Callable[[], str], count: int, at_most: float | None) -> Row:
    """The 95th percentile of one kind of page."""
    process = psutil.Process(site.pid)
    before = sum(process.cpu_times()[:2])
    times = sorted(asyncio.run(load(site, [path() for _ in range(count)])))
    cpu = 1000 * (sum(process.cpu_times()[:2]) - before) / count
    middle, late = (1000 * times[int(share * count)] for share in (0.5, 0.95))
    detail = f"median {number(middle)} ms, {cpu:.1f} ms of processor time each"
    return Row(f"{name}: p95 at {AT_A_TIME} requests at a time", "ms", at_most, late, detail=detail)


async def load(site: Site, paths: list[str]) -> list[float]:
    """Seconds of each request, of so many connections at a time."""
    times: list[float] = []

    async def ask(session: aiohttp.ClientSession) -> None:
        while paths:
            path = paths.pop()
            began = time.perf_counter()
            async with session.get(path) as answer:
                await answer.read()
                if answer.status != http.client.OK:
                    raise SystemExit(f"{path}: {answer.status}")
            times.append(time.perf_counter() - began)

    connector = aiohttp.TCPConnector(limit=AT_A_TIME)
    async with aiohttp.ClientSession(site.url, connector=connector) as session:
        await asyncio.gather(*(ask(session) for _ in range(AT_A_TIME)))
    return times


def download(site: Site, store: Store, archive_port: int, file_id: str, sizes: Sizes, into: Path | None) -> Row:
    """The same file from the archive and from the site, by the same client, turn about, into a file; or thrown away.

    The latter, which nobody does, shows what the site costs: on two processors its part is not done beside the others'.
    """
    direct, by_site = [], []
    process = psutil.Process(site.pid)
    before = sum(process.cpu_times()[:2])
    for _ in range(sizes.transfers):
        direct.append(transfer(archive_port, f"/RETRIEVE?file_id={file_id}", sizes.large, into))
        by_site.append(transfer(site.port, f"/files/{store.large_run}/large.bin", sizes.large, into))
    cpu = (sum(process.cpu_times()[:2]) - before) / sizes.transfers
    ratios = [one / other for one, other in zip(by_site, direct, strict=True)]
    detail = (
        f"{number(median(by_site) / 1e6)} and {number(median(direct) / 1e6)} MB/s; best ratio {max(ratios):.2f}, "
        f"{cpu:.2f} s of the site's processor time each"
    )
    where = "into a file" if into else "thrown away"
    name = f"download of {sizes.large // MIB} MiB {where}, to a direct RETRIEVE"
    return Row(name, "ratio", 0.8 if into else None, median(ratios), at_most=False, detail=detail)


def transfer(port: int, path: str, size: int, into: Path | None) -> float:
    """Bytes a second of one download on a connection of its own."""
    buffer, came = memoryview(bytearray(MIB)), 0
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S))
        )
        kept = stack.enter_context(into.open("wb", buffering=0)) if into else None
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        while count := answer.readinto(buffer):
            came += count
            if kept:
                kept.write(buffer[:count])
        seconds = time.perf_counter() - began
    if answer.status != http.client.OK or came != size:
        raise SystemExit(f"{path}: {answer.status}, {came} of {size} bytes")
    return size / seconds


def memory(site: Site, store: Store, sizes: Sizes) -> Row:
    """The most resident memory of the site while so many download at once, half as fast as they can and half slowly."""
    stop = threading.Event()
    came = [0] * DOWNLOADS

    def client(index: int) -> None:
        while not stop.is_set():
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=WAIT_S)) as connection:
                connection.request("GET", f"/files/{store.large_run}/large.bin")
                answer = connection.getresponse()
                if answer.status != http.client.OK:
                    raise SystemExit(f"a download of many: {answer.status}")
                while not stop.is_set() and (block := answer.read(1 << 16)):
                    came[index] += len(block)
                    if index % 2:
                        time.sleep(0.05)

    before = forget_peak(site.pid)
    threads = [threading.Thread(target=client, args=(index,)) for index in range(DOWNLOADS)]
    for each in threads:
        each.start()
    time.sleep(sizes.in_flight_s)
    stop.set()
    for each in threads:
        each.join()
    detail = f"{number(before / MIB)} MiB before; {number(sum(came) / MIB)} MiB came, to each at least {number(min(came) / MIB)}"
    return Row(f"memory with {DOWNLOADS} downloads in flight", "MiB", 200, peak(site.pid) / MIB, detail=detail)


def table(rows: list[Row], sizes: Sizes, load: float, *, quick: bool) -> str:
    """The rows as Markdown."""
    about = machine()
    lines = [
        f"{about['cores']} cores of {about['cpu']} for MLflow, archive, site and clients together, {sizes.runs} runs in the "
        f"tracking store; load of the machine {load:.0f}.",
        "",
        "| measure | unit | needed | measured | holds | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        needed = "" if row.needed is None else f"{'≤' if row.at_most else '≥'} {_value(row.needed, row.unit)}"
        verdict = {True: "yes", False: "**no**", None: ""}[row.holds]
        measured = _value(row.measured, row.unit)
        lines.append(f"| {row.measure} | {row.unit} | {needed} | {measured} | {verdict} | {row.detail} |")
    if quick:
        lines += ["", "Made with --quick: it shows that the benchmark works; the figures mean nothing."]
    return "\n".join(lines) + "\n"


def _value(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "ratio" else number(value)


if __name__ == "__main__":
    main()

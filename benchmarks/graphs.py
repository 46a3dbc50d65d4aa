"""Measure what running a graph costs beyond its work: per task, per batch, for a thousand batches, and when all is done already.

    OMP_NUM_THREADS=1 python benchmarks/graphs.py --out bench-results          # about ten minutes; --quick: small sizes, about two

Starts an embedded stack of its own on free ports and stops it at the end. Times are wall times; `cpu` is what the processes of the
stack used in that time, which other programs on the machine do not change.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from dlg_ml_tasks import stack
from dlg_ml_tasks.graphs.build import GraphBuilder
from dlg_ml_tasks.graphs.follow import SessionResult, follow
from dlg_ml_tasks.graphs.island import Island
from dlg_ml_tasks.graphs.override import override
from dlg_ml_tasks.graphs.shipped import lifecycle
from dlg_ml_tasks.graphs.submit import new_session_id, submit, translate
from dlg_ml_tasks.stack.ports import Ports
from dlg_ml_tasks.tracking.sessions import begin_session

HERE = Path(__file__).parent
LIFECYCLE = ("recipe=digits", "model_name=digits", "infer.model=models:/digits@champion")
PEERS_PER_TASK = {
    "Metaflow, a process per task": 1.3,
    "Dagster, its default (a process per task)": 3.0,
    "Kedro, no isolation": 0.2,
    "Dagster, no isolation": 0.4,
}
"""Seconds per task, measured by the project's maintainers on such a graph; none of them is run here."""
PEERS_PER_BATCH = {"Metaflow, no tracking": 0.13, "Dagster, in process": 0.051, "Kedro, in process": 0.006}
"""Seconds added per batch, at most, likewise."""


@dataclass
class Row:
    """One line of the table: what was measured, and the most it may be. `detail` says how it came about."""

    measure: str
    value: float
    at_most: float
    unit: str
    detail: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= self.at_most


class Bench:
    """A running stack and the means to run graphs on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        host, port = stack.resolve(home, {}).require_island()
        self.island = Island(f"{host}:{port}", timeout=60)

    def run(self, graph: dict[str, Any]) -> tuple[SessionResult, float, dict[str, float]]:
        """Submit and follow a graph: the result, wall seconds, and CPU seconds by service."""
        with self.cpu() as used:
            began = time.perf_counter()
            session = new_session_id(graph)
            # As `dlg-ml run` does: else the first tasks find out among them who makes the session's run.
            begin_session(session)
            result = follow(self.island, submit(graph, self.island, session=session))
            wall = time.perf_counter() - began
        return result, wall, used

    @contextmanager
    def cpu(self) -> Iterator[dict[str, float]]:
        """CPU seconds that each service and its children use, those that ended included."""
        used: dict[str, float] = {}
        before = self._cpu()
        yield used
        used |= {name: after - before[name] for name, after in self._cpu().items()}

    def _cpu(self) -> dict[str, float]:
        found = {}
        for service in self._services():
            family = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
            found[service.name] = sum(sum(each.cpu_times()[:4]) for each in family if each.is_running())
        return found

    def memory(self, name: str) -> float:
        """Resident MiB of a service's own process."""
        (pid,) = [service.pid for service in self._services() if service.name == name]
        return float(psutil.Process(pid).memory_info().rss / 2**20)

    def _services(self) -> tuple[stack.ServiceState, ...]:
        state = stack.load_state(self.home)
        assert state is not None
        return state.services


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--quick", action="store_true", help="fewer and smaller graphs")
    parser.add_argument("--only", nargs="*", choices=list(_MEASURES), default=list(_MEASURES))
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dlg-ml-bench-") as folder, _stack(Path(folder) / "home") as bench:
        for name in arguments.only:
            rows += _MEASURES[name](bench, Path(folder), arguments.quick)
            _write(rows, arguments.out, arguments.quick)  # what is measured stays, whatever comes after it
    print(_table(rows))


def _write(rows: list[Row], out: Path, quick: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    report = {"machine": _machine(), "quick": quick, "rows": [asdict(row) for row in rows]}
    (out / "graphs.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "graphs.md").write_text(_table(rows))


@contextmanager
def _stack(home: Path) -> Iterator[Bench]:
    home.mkdir()
    (home / "ports.json").write_text(json.dumps(_free_ports()))
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DLG_ML", "MLFLOW_TRACKING"))}
    # Off for this machine only: the first start migrates MLflow's database, which takes long on a busy one.
    stack.up(home, environ={**environment, "PYTHONPATH": paths}, healthy_within_s=240)
    uri = stack.resolve(home, {}).require_tracking_uri()
    os.environ["MLFLOW_TRACKING_URI"] = uri
    sys.path.insert(0, str(HERE))
    try:
        bench = Bench(home)
        bench.run(_batches(HERE, 1, name="warm"))  # the fork server's imports are done
        yield bench
    finally:
        stack.down(home)


def measure_child_start(bench: Bench, folder: Path, quick: bool) -> list[Row]:
    """A task that does nothing in a process of its own, from asking for it until the process has ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", _CHILD_START, str(5 if quick else 30)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    starts = json.loads(done.stdout.splitlines()[-1])
    detail = f"and its end; median of {len(starts)}, the longest {max(starts):.3f} s"
    measure = "start of a task's child process, heavy imports preloaded"
    return [Row(measure, statistics.median(starts), 0.1, "s", detail)]


_CHILD_START = """
import json, sys, time
from dlg_ml_tasks.components import process

REQUEST = {"task": "untracked:LOAD_RAW", "light": False, "params": {}, "inputs": {}, "lost": [],
           "session": "s", "node": "n", "force": False}

def once():
    began = time.perf_counter()
    process.run(REQUEST, on_log=print, on_traceback=print, cancelled=lambda: False)
    return time.perf_counter() - began

if __name__ == "__main__":
    process.start_server()
    print(json.dumps([once() for _ in range(int(sys.argv[1]) + 1)][1:]))
"""


def measure_overhead(bench: Bench, folder: Path, quick: bool) -> list[Row]:
    """The lifecycle of `digits` on the engine, and its tasks called one after the other in this process, warm."""
    tasks = 8
    engine, here = [], []
    _call_in_process(bench, seed=100)  # everything is imported now
    for seed in range(1 if quick else 3):
        result, wall, _ = bench.run(_lifecycle(seed))
        assert result.ok, result.reason
        assert not any(task.state == "reused" for task in result.tasks)
        engine.append(wall)
        here.append(_call_in_process(bench, seed=101 + seed))
    added = (statistics.median(engine) - statistics.median(here)) / tasks
    peers = "; ".join(f"{name} {seconds} s" for name, seconds in PEERS_PER_TASK.items())
    detail = (
        f"engine {statistics.median(engine):.2f} s, one warm process {statistics.median(here):.2f} s; peers: {peers}"
    )
    return [Row("engine and component overhead per task (lifecycle of digits)", added, 0.3, "s", detail)]


def measure_survey(bench: Bench, folder: Path, quick: bool) -> list[Row]:
    """Batches of no-op work: what a batch adds, whether a thousand run, the memory then, and running all again."""
    few, many = (10, 50) if quick else (100, 1000)
    rows = []
    results = {}
    for count in (few, many):
        result, wall, used = bench.run(_batches(_files(folder, count), count, name=f"survey-{count}"))
        assert result.ok, result.reason
        results[count] = wall, used
    detail = _per_batch(results, few, many)
    added = (results[many][0] - results[few][0]) / (many - few)
    rows.append(
        Row(f"survey, added time per batch between {few} and {many} batches, tracking on", added, 0.06, "s", detail)
    )
    rows.append(Row(f"{many} batches: memory of the node manager", bench.memory("node"), 600, "MiB", "no task failed"))
    _, wall, used = bench.run(_batches(_files(folder, few), few, name="again"))
    detail = f"cpu {sum(used.values()):.1f} s"
    rows.append(Row(f"resuming a finished {few}-batch graph", wall, 10, "s", detail))
    return rows


def measure_untracked(bench: Bench, folder: Path, quick: bool) -> list[Row]:
    """The same with tracking off."""
    few, many = (10, 50) if quick else (100, 1000)
    results = {}
    for count in (few, many):
        graph = _batches(_files(folder, count), count, name=f"untracked-{count}")
        for node in graph["nodeDataArray"]:
            for field in node.get("fields", ()):
                if field["name"] == "dropclass" and str(field["value"]).startswith("dlg_ml_tasks.components."):
                    field["value"] = "untracked_apps.Untracked" + str(field["value"]).rpartition(".")[2]
        result, wall, used = _deploy(bench, graph, f"untracked-{count}")
        assert result.ok, result.reason
        results[count] = wall, used
    added = (results[many][0] - results[few][0]) / (many - few)
    measure = f"the same with tracking off, between {few} and {many} batches"
    return [Row(measure, added, 0.02, "s", _per_batch(results, few, many))]


_MEASURES: dict[str, Callable[[Bench, Path, bool], list[Row]]] = {
    "overhead": measure_overhead,
    "child": measure_child_start,
    "survey": measure_survey,
    "untracked": measure_untracked,
}


def _deploy(bench: Bench, graph: dict[str, Any], session: str) -> tuple[SessionResult, float, dict[str, float]]:
    """Deploy components that `check` does not know."""
    from dlg import droputils

    with bench.cpu() as used:
        began = time.perf_counter()
        drops = translate(graph, session, bench.island.nodes())
        bench.island.create_session(session)
        bench.island.append_graph(session, drops)
        bench.island.deploy(session, sorted(droputils.get_roots(drops)))
        result = follow(bench.island, session)
        wall = time.perf_counter() - began
    return result, wall, used


def _batches(files: Path, count: int, *, name: str) -> dict[str, Any]:
    """load_raw and preprocess for each of `count` batches, and one task that waits for them all."""
    graph = GraphBuilder(name, "Batches of no-op work.")
    with graph.scatter("batches", copies=count):
        raw = graph.task("load_raw", sources=str(files), recipe="noop_recipe:Noop")
        data = graph.task("preprocess", recipe="noop_recipe:Noop")
    graph.link(raw, data, port="raw")
    end = graph.task("load_raw", name="end", sources="sample:end", recipe="noop_recipe:Noop")
    graph.link(data, end, port="after")
    return graph.build()


def _files(folder: Path, count: int) -> Path:
    files = folder / f"files-{count}"
    files.mkdir(exist_ok=True)
    for number in range(count):
        path = files / f"{number:05}.txt"
        if not path.exists():
            path.write_text(f"file {number} of {count}")
    return files


def _lifecycle(seed: int) -> dict[str, Any]:
    return override(lifecycle().build(), [*LIFECYCLE, f"seed={seed}"])


def _call_in_process(bench: Bench, seed: int) -> float:
    """Seconds for the tasks of the lifecycle as function calls, in their order, tracked by the same server."""
    from dlg_ml_tasks.tasks import TASKS

    began = time.perf_counter()
    work = {"recipe": "digits"}
    model = {**work, "model_name": "digits-in-process"}
    raw = [TASKS["load_raw"].run({**work, "sources": f"sample:night-{night}", "seed": seed}) for night in "AB"]
    data = [TASKS["preprocess"].run(work, {"raw": [each.reference]}).reference for each in raw]
    first = TASKS["train"].run({**model, "seed": seed}, {"data": data[:1]}).reference
    second = (
        TASKS["retrain"]
        .run({**model, "seed": seed}, {"data": data[1:], "replay": data[:1], "model": [first]})
        .reference
    )
    TASKS["promote"].run(model, {"model": [second], "data": data[1:], "earlier": data[:1]})
    TASKS["infer"].run({**work, "model": "models:/digits-in-process@champion"}, {"data": data})
    return time.perf_counter() - began


def _per_batch(results: dict[int, tuple[float, dict[str, float]]], few: int, many: int) -> str:
    used = {name: 1000 * (seconds - results[few][1][name]) / (many - few) for name, seconds in results[many][1].items()}
    shares = ", ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in used.items() if milliseconds >= 0.5)
    walls = f"{results[few][0]:.1f} s and {results[many][0]:.1f} s"
    return f"{walls}; cpu per batch {sum(used.values()):.0f} ms ({shares})"


def _table(rows: list[Row]) -> str:
    lines = ["| measure | measured | at most | |", "| --- | --- | --- | --- |"]
    for row in rows:
        value = f"{row.value:.0f}" if row.value >= 100 else f"{row.value:.3g}"
        verdict = "" if row.holds else " (missed)"
        lines.append(f"| {row.measure} | {value} {row.unit}{verdict} | {row.at_most:g} {row.unit} | {row.detail} |")
    return "\n".join(lines) + "\n"


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


def _free_ports() -> dict[str, int]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in Ports.model_fields]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(Ports.model_fields, ports, strict=True))


if __name__ == "__main__":
    main()

"""A results site on real data: the digits lifecycle in MLflow and the embedded archive, served by `dlg-ml web`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

START_SECONDS = 180


@dataclass(frozen=True)
class Story:
    """What the lifecycle left: run ids by node, the model's name, the experiment's."""

    runs: Mapping[str, str]
    model: str
    experiment: str
    session: str
    locations: Mapping[str, str]

    def location(self, run_id: str) -> str:
        """Where a run's artifacts lie."""
        return self.locations[run_id]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a site as a program does, with header names in lower case in the answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._host, self._port, self._prefix = parts.hostname or "", parts.port or 80, parts.path.rstrip("/")

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        connection = HTTPConnection(self._host, self._port, timeout=60)
        try:
            connection.request(method, f"{self._prefix}{path}", headers=dict(headers or {}))
            response: HTTPResponse = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def wait_for(self, what: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until the site shows something; it looks at MLflow every few seconds."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"the site did not get there in {seconds} s"
            time.sleep(0.2)


class Gate:
    """A way to a server on this machine that can be closed, as if the server had stopped, and opened again at the same address."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._open = threading.Event()
        self._open.set()
        self._stuck = threading.Event()
        self._waiting: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Cut all connections, and every new one at once."""
        self._open.clear()
        self._cut()
        try:
            yield
        finally:
            self._open.set()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Cut all connections, and take every new one without a word, as a server that is stuck does."""
        self._stuck.set()
        self._cut()
        try:
            yield
        finally:
            self._stuck.clear()
            for end in self._waiting:
                end.close()
            self._waiting.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if not self._open.is_set():
                client.close()
                continue
            if self._stuck.is_set():
                self._waiting.append(client)
                continue
            server = socket.create_connection(self._target)
            self._ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(1 << 16):
                sink.sendall(block)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()


def gate_to(url: str) -> Gate:
    parts = urlsplit(url)
    return Gate(parts.hostname or "", parts.port or 0)


@pytest.fixture(scope="session")
def archive_gate(archive: str) -> Gate:
    """The way to the archive that the story's files lie behind."""
    return gate_to(archive)


@pytest.fixture(scope="session")
def mlflow_gate(tracking_server: str) -> Gate:
    """A way to the tracking server for sites that are to lose it."""
    return gate_to(tracking_server)


@pytest.fixture(scope="session")
def story(archive_gate: Gate, tracking_store: Path, tracking_server: str) -> Iterator[Story]:
    """Two nights of digits loaded, preprocessed, trained on, retrained on, judged and inferred, in one session, all public."""
    import mlflow

    from dlg_ml_tasks.tasks import infer, load_raw, preprocess, promote, retrain, train
    from dlg_ml_tasks.tracking.sessions import begin_session, end_session

    name, model = f"web-{uuid.uuid4().hex[:8]}", f"digits-{uuid.uuid4().hex[:8]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracking_store}")
        patch.setenv("DLG_ML_EXPERIMENT", name)
        client = mlflow.MlflowClient()
        client.create_experiment(
            name, artifact_location=f"ngas://127.0.0.1:{archive_gate.port}/{name}", tags={"public": "yes"}
        )
        session = f"life-{uuid.uuid4().hex[:8]}"
        begin_session(session)
        recipe = {"recipe": "digits"}
        named = {**recipe, "model_name": model}
        runs: dict[str, str] = {}

        def run(task: Any, node: str, params: Mapping[str, Any], **inputs: Any) -> Any:
            references = {port: given if isinstance(given, list) else [given] for port, given in inputs.items()}
            outcome = task.run(params, references, session=session, node=node)
            runs[node] = outcome.run_id
            return outcome.reference

        data = {}
        for night in "AB":
            raw = run(load_raw, f"load-raw-{night}", {"sources": f"sample:night-{night}", **recipe})
            data[night] = run(preprocess, f"preprocess-{night}", recipe, raw=raw)
        first = run(train, "train", named, data=data["A"])
        client.set_registered_model_tag(model, "public", "yes")
        run(infer, "infer-1", {**recipe, "model": f"models:/{model}/1"}, data=list(data.values()))
        second = run(retrain, "retrain", named, data=data["B"], replay=data["A"], model=first)
        run(promote, "promote", named, model=second, data=data["B"], earlier=data["A"])
        run(infer, "infer", {**recipe, "model": f"models:/{model}@champion"}, data=list(data.values()))
        end_session(session, "FINISHED")
        locations = {run_id: client.get_run(run_id).info.artifact_uri for run_id in runs.values()}
        yield Story(runs, model, name, session, locations)


@pytest.fixture(scope="session")
def site(story: Story, tracking_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A site that shows the story and nothing else of the shared tracking server."""
    folder = tmp_path_factory.mktemp("site")
    with served(tracking_server, folder, DLG_ML_WEB_PUBLIC="tagged", DLG_ML_WEB_RATE="0") as client:
        client.wait_for(lambda: client.get("/health").json["complete"])
        client.wait_for(lambda: story.runs["infer"] in client.get("/runs").text)
        client.wait_for(lambda: bool(client.get(f"/results/{story.runs['infer']}.json").json["items"]))
        yield client


SECRET = "zq7hidden"
HOSTILE = (
    f"<img src=x onerror=alert(1)>{SECRET}.csv",
    f"<script>alert('{SECRET}').html",
    f"a Set-Cookie: {SECRET}=1;.svg",
    f'quote"semi;{SECRET}é漢.txt',
    f"%2e%2e%2f{SECRET} ?&#.yaml",
)


@dataclass(frozen=True)
class Hidden:
    """An experiment and a model without the tag `public`, full of what a site must not trust, and of what it must not show.

    word: stands in every name, value and file of it. names: of files at the top of the inference.
    """

    word: str
    names: tuple[str, ...]
    runs: Mapping[str, str]
    model: str
    sha256: str
    checksums: Mapping[str, str]
    large: bytes


@pytest.fixture(scope="session")
def hidden(story: Story, archive: str, tracking_store: Path) -> Hidden:
    """A load_raw and an inference of the story's data by a model of their own, with hostile names and broken files."""
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

    from dlg_ml_tasks.archive import NgasClient, split_url
    from dlg_ml_tasks.archive.tree import NgasTree

    client = MlflowClient(f"sqlite:///{tracking_store}", f"sqlite:///{tracking_store}")
    address, _ = split_url(archive)
    tree = NgasTree(NgasClient(*address))
    model, sha256 = f"{SECRET}-model-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex * 2
    experiment = client.create_experiment(f"{SECRET}-{uuid.uuid4().hex[:8]}", artifact_location=f"{archive}/{SECRET}")
    html = f"<script>alert('{SECRET}')</script>"
    raw = {"files": [{"name": f"{SECRET}.uvh5", "sha256": sha256, "size": 10**30, "source": html}]}
    good = {"files": [{"name": f"{SECRET}{html}.uvh5", "sha256": sha256, "size": 7, "source": html}]}
    results = {"items": {f"{SECRET}.uvh5": {"f1": float("nan"), html: 0.5, "words": "none"}}}
    runs, checksums, large = {}, {}, os.urandom(1 << 20) * 24
    for node, task, table in (
        ("broken", "load_raw", ("sources.json", raw)),
        ("load", "load_raw", ("sources.json", good)),
        ("infer", "infer", ("results/metrics.json", results)),
    ):
        run = client.create_run(experiment, run_name=f"{SECRET}-{node}")
        runs[node] = run.info.run_id
        tags = {
            "dlg_ml.task": task,
            "dlg_ml.node": f"{SECRET}-{node}{html}",
            "dlg_ml.session": f"{SECRET}-session",
            "dlg_ml.model": f"models:/{model}/1",
            "note": html,
        }
        client.log_batch(
            runs[node],
            [Metric(f"{SECRET}_score", 0.5, 0, step) for step in range(3)],
            [Param("text", html), Param(f"{SECRET}.param", "javascript:alert(1)")],
            [RunTag(name, value) for name, value in tags.items()],
        )
        used = Dataset(f"data-{SECRET}", "1", "local", json.dumps({"uri": f"runs:/{story.runs['preprocess-A']}/data"}))
        client.log_inputs(runs[node], [DatasetInput(used, [])])
        root = urlsplit(client.get_run(runs[node]).info.artifact_uri).path
        path, content = table
        tree.store(f"{root}/{path}", json.dumps(content).encode(), None)
        client.set_terminated(runs[node])
    root = urlsplit(client.get_run(runs["infer"]).info.artifact_uri).path
    for name in HOSTILE:
        tree.store(f"{root}/{name}", f"{html}\n".encode() * 20, None)
    folder = f"results/{SECRET}.uvh5"
    for name, body in {
        f"{folder}/long.csv": b"a,b\n" + b"x" * 200_000 + b",1\n",
        f"{folder}/deep.geojson": b"[" * 100_000,
        f"{folder}/large.bin": large,
        f"{folder}/empty.txt": b"",
    }.items():
        tree.store(f"{root}/{name}", body, None)
        checksums[name] = str(tree.entry(f"{root}/{name}").checksum)
    client.create_registered_model(model, description=html)
    client.create_model_version(
        model, f"{archive}{root}/model", runs["infer"], tags={"metric.f1": "nan", "metric.x": "0.5", "n": html}
    )
    client.set_registered_model_alias(model, "champion", "1")
    return Hidden(SECRET, HOSTILE, runs, model, sha256, checksums, large)


@pytest.fixture(scope="session")
def open_site(
    story: Story, hidden: Hidden, tracking_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A site that shows everything, the hidden, too, and lets anybody ask as often as they like."""
    folder = tmp_path_factory.mktemp("open-site")
    with served(tracking_server, folder, DLG_ML_WEB_PUBLIC="all", DLG_ML_WEB_RATE="0") as client:
        client.wait_for(lambda: client.get("/health").json["complete"])
        client.wait_for(lambda: bool(client.get(f"/results/{hidden.runs['infer']}.json").json["items"]))
        client.wait_for(lambda: client.get(f"/lineage/file/{hidden.sha256}").status == 200)
        yield client


@pytest.fixture
def serve(tracking_server: str, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Starts further sites with settings of their own."""
    with ExitStack() as stack:

        def start(tracking_uri: str = tracking_server, **environment: str) -> Client:
            folder = tmp_path / f"site-{uuid.uuid4().hex[:6]}"
            folder.mkdir()
            return stack.enter_context(served(tracking_uri, folder, **environment))

        yield start


class served:  # noqa: N801  used as a function
    """Runs `dlg-ml web` in a process of its own on a free port."""

    def __init__(self, tracking_uri: str, folder: Path, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._log = folder / "site.log"
        cleaned = {k: v for k, v in os.environ.items() if not k.startswith(("DLG_ML", "MLFLOW"))}
        self._environment = {**cleaned, "MLFLOW_TRACKING_URI": tracking_uri, "DLG_ML_HOME": str(folder), **environment}
        self._command = [sys.executable, "-m", "dlg_ml_tasks.cli.main", "web", "--port", str(port)]
        prefix = urlsplit(environment.get("DLG_ML_WEB_URL", "")).path
        self._client = Client(f"http://127.0.0.1:{port}{prefix}")

    def __enter__(self) -> Client:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            try:
                if self._client.get("/health").status == 200:
                    return self._client
            except OSError:
                time.sleep(0.2)

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        assert self._process.wait(timeout=60) in (0, -15)
        log = self._log.read_text()
        assert "Traceback" not in log, log

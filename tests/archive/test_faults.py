"""Every fault of a connection ends in verified data or in a clear error: never in wrong bytes, never in two versions."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dlg_ml_tasks.archive import ArchiveOverloaded, ArchiveUnreachable, NgasClient, NgasError

pytestmark = pytest.mark.integration

BUSY = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"  # all that the real server says
HEAD_AT, BODY_AT = 30, 60_000  # offsets within a request's or reply's head, and within the body of `CONTENT`
OLD = b"what was there before " * 5000
CONTENT = random.Random(4711).randbytes(130_000)
LARGE = random.Random(815).randbytes((3 << 20) + 17)  # more than one block, so that it arrives in a part

few = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Trial:
    """One file in the archive, what is done with it over a wire with faults, and what must hold afterwards."""

    def __init__(self, wire: Any, direct: NgasClient, folder: Path, file_id: str) -> None:
        self.wire = wire
        self.direct = direct
        self.folder = folder
        self.file_id = file_id
        self.name = (file_id, f"{file_id}.bin")
        self.target = folder / "back"

    def client(self, patience: float) -> NgasClient:
        return NgasClient(self.wire.host, self.wire.port, timeout=0.5, patience=patience)

    def held(self) -> list[bytes]:
        """The content of every version in the archive, each read in full."""
        copies = sorted(self.direct.query(self.file_id), key=lambda copy: copy.version)
        return [self.direct.read(copy) for copy in copies if copy.file_id == self.file_id]


@pytest.fixture
def trial(wire: Any, client: NgasClient, tmp_path: Path, file_id: str) -> Trial:
    return Trial(wire, client, tmp_path, file_id)


class Operation:
    """`prepare` over a good connection, `run` over the bad one, then `succeeded` or `failed` must hold."""

    def prepare(self, trial: Trial) -> None:
        trial.direct.archive(CONTENT, *trial.name)

    def run(self, trial: Trial, client: NgasClient) -> None:
        raise NotImplementedError

    def succeeded(self, trial: Trial) -> None:
        assert trial.held() == [CONTENT]

    def misheard(self, trial: Trial) -> bool:
        """Whether a flipped bit made another good request of this one: nothing in the protocol vouches for a request."""
        return False

    def failed(self, trial: Trial) -> None:
        assert trial.held() == [CONTENT]


class Upload(Operation):
    def prepare(self, trial: Trial) -> None:
        pass

    def run(self, trial: Trial, client: NgasClient) -> None:
        assert client.archive(CONTENT, *trial.name, known=None).version == 1

    def failed(self, trial: Trial) -> None:
        assert trial.held() in ([], [CONTENT])


class Overwrite(Operation):
    def prepare(self, trial: Trial) -> None:
        trial.direct.archive(OLD, *trial.name)

    def run(self, trial: Trial, client: NgasClient) -> None:
        client.archive(CONTENT, *trial.name)

    def failed(self, trial: Trial) -> None:
        # Not even an interrupted overwrite leaves more than the old one and the new one.
        assert trial.held() in ([OLD], [OLD, CONTENT], [CONTENT])


class Download(Operation):
    content = CONTENT

    def prepare(self, trial: Trial) -> None:
        trial.direct.archive(self.content, *trial.name)
        trial.target.write_bytes(OLD)

    def run(self, trial: Trial, client: NgasClient) -> None:
        client.retrieve(trial.file_id, trial.target)

    def succeeded(self, trial: Trial) -> None:
        assert trial.target.read_bytes() == self.content
        assert list(trial.folder.iterdir()) == [trial.target]

    def failed(self, trial: Trial) -> None:
        assert trial.target.read_bytes() == OLD
        assert [path for path in trial.folder.iterdir() if path.suffix != ".part"] == [trial.target]


class LargeDownload(Download):
    content = LARGE


class Status(Operation):
    def run(self, trial: Trial, client: NgasClient) -> None:
        assert client.status(trial.file_id).size == len(CONTENT)


class Listing(Operation):
    listed: list[int]

    def run(self, trial: Trial, client: NgasClient) -> None:
        self.listed = [copy.size for copy in client.query(trial.file_id)]

    def succeeded(self, trial: Trial) -> None:
        assert self.listed == [len(CONTENT)]

    def misheard(self, trial: Trial) -> bool:
        return self.listed == []  # of another name there is nothing


class Delete(Operation):
    def run(self, trial: Trial, client: NgasClient) -> None:
        client.delete(trial.file_id)

    def succeeded(self, trial: Trial) -> None:
        assert trial.held() == []

    def failed(self, trial: Trial) -> None:
        assert trial.held() in ([], [CONTENT])


OPERATIONS = [Upload(), Overwrite(), Download(), LargeDownload(), Status(), Listing(), Delete()]
operations = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)


@pytest.fixture
def fault(wire: Any) -> Callable[..., Any]:
    return type(wire.always)  # type: ignore[no-any-return]


STAGES = {
    "before the request": {"cut_up": 0},
    "in the head of the request": {"cut_up": HEAD_AT},
    "in the body of the request": {"cut_up": BODY_AT},
    "before the reply": {"cut_down": 0},
    "in the head of the reply": {"cut_down": HEAD_AT},
    "in the body of the reply": {"cut_down": BODY_AT},
    "in the body of a short reply": {"cut_down": 400},
}
stages = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())


@operations
@stages
def test_a_connection_that_is_reset_once_does_no_harm(
    operation: Operation, stage: dict[str, int], trial: Trial, fault: Callable[..., Any]
) -> None:
    operation.prepare(trial)
    trial.wire.faults = [fault(**stage)]
    operation.run(trial, trial.client(patience=10))
    operation.succeeded(trial)


@operations
@stages
def test_a_connection_that_is_always_reset_is_a_clear_error(
    operation: Operation, stage: dict[str, int], trial: Trial, fault: Callable[..., Any]
) -> None:
    operation.prepare(trial)
    trial.wire.always = fault(**stage)
    try:
        operation.run(trial, trial.client(patience=0))
    except ArchiveUnreachable as error:
        assert f"{trial.wire.host}:{trial.wire.port}" in str(error)
        operation.failed(trial)
    else:
        operation.succeeded(trial)  # the stage lies behind the end of what this operation sends or is sent


@operations
@stages
def test_a_body_that_just_ends_does_no_harm(
    operation: Operation, stage: dict[str, int], trial: Trial, fault: Callable[..., Any]
) -> None:
    operation.prepare(trial)
    trial.wire.faults = [fault(**stage, gently=True)]
    operation.run(trial, trial.client(patience=10))
    operation.succeeded(trial)


@operations
@pytest.mark.parametrize("after", [0, HEAD_AT, 400])
def test_a_server_that_stalls_is_left_for_another_try(
    operation: Operation, after: int, trial: Trial, fault: Callable[..., Any]
) -> None:
    operation.prepare(trial)
    trial.wire.faults = [fault(stall_down=after)]
    operation.run(trial, trial.client(patience=10))
    operation.succeeded(trial)


@operations
def test_a_storm_of_503_is_weathered(operation: Operation, trial: Trial, fault: Callable[..., Any]) -> None:
    operation.prepare(trial)
    trial.wire.faults = [fault(instead=BUSY)] * 2
    operation.run(trial, trial.client(patience=10))
    operation.succeeded(trial)


@operations
def test_a_storm_of_503_without_end_is_a_clear_error(
    operation: Operation, trial: Trial, fault: Callable[..., Any]
) -> None:
    operation.prepare(trial)
    trial.wire.always = fault(instead=BUSY)
    with pytest.raises((ArchiveOverloaded, ArchiveUnreachable)):
        operation.run(trial, trial.client(patience=0))
    operation.failed(trial)


@operations
@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 500, b"HTTP/1.1 200 OK\r\n\r\n<html>welcome</html>"]
)
def test_a_reply_that_is_not_of_ngas_is_a_clear_error(
    operation: Operation, garbage: bytes, trial: Trial, fault: Callable[..., Any]
) -> None:
    operation.prepare(trial)
    trial.wire.always = fault(instead=garbage)
    with pytest.raises(NgasError):
        operation.run(trial, trial.client(patience=0))
    operation.failed(trial)


@contextlib.contextmanager
def fresh(trial: Trial, operation: Operation) -> Iterator[None]:
    """Hypothesis runs many examples in one test: each begins with nothing and leaves nothing."""
    operation.prepare(trial)
    yield
    trial.wire.always, trial.wire.faults = type(trial.wire.always)(), []
    with contextlib.suppress(FileNotFoundError):
        trial.direct.delete(trial.file_id)
    for path in trial.folder.iterdir():
        path.unlink()


def ends_well(operation: Operation, trial: Trial, *, asked_otherwise: bool = False) -> None:
    try:
        operation.run(trial, trial.client(patience=1))
    except NgasError:
        operation.failed(trial)
    else:
        if not (asked_otherwise and operation.misheard(trial)):
            operation.succeeded(trial)


offsets = st.one_of(st.integers(0, 1500), st.integers(0, 140_000))


@operations
@few
@given(offset=offsets, up=st.booleans(), gently=st.booleans())
def test_a_cut_anywhere_ends_in_the_right_bytes(
    operation: Operation, trial: Trial, fault: Callable[..., Any], offset: int, up: bool, gently: bool
) -> None:
    with fresh(trial, operation):
        trial.wire.faults = [fault(**{"cut_up" if up else "cut_down": offset}, gently=gently)]
        operation.run(trial, trial.client(patience=10))
        operation.succeeded(trial)


@operations
@few
@example(offset=50, up=True, bit=0)  # in the name that a listing asks for
@given(offset=offsets, up=st.booleans(), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_ends_in_the_right_bytes_or_an_error(
    operation: Operation, trial: Trial, fault: Callable[..., Any], offset: int, up: bool, bit: int
) -> None:
    with fresh(trial, operation):
        trial.wire.hang_up()
        trial.wire.faults = [fault(**{"flip_up" if up else "flip_down": offset}, bit=bit)]
        ends_well(operation, trial, asked_otherwise=up)


@operations
def test_a_reply_that_comes_twice_never_stands_for_another_one(
    operation: Operation, trial: Trial, fault: Callable[..., Any]
) -> None:
    operation.prepare(trial)
    trial.wire.always = fault(twice=True)
    ends_well(operation, trial)

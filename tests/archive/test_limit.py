from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import NgasClient, NgasFileSystem
from dlg_ml_tasks.archive.address import Address
from dlg_ml_tasks.archive.limit import CEILING, FLOOR, START, AdaptiveLimit
from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits
from dlg_ml_tasks.archive.shared import shared_by_clients_of


@pytest.fixture
def limit() -> AdaptiveLimit:
    return AdaptiveLimit("archive:7777")


def keep_busy(limit: AdaptiveLimit, rounds: int) -> None:
    """As many requests at a time as the limit allows, all of which succeed."""

    def nested(depth: int) -> None:
        with other_thread(limit) as slot:
            if depth:
                nested(depth - 1)
            slot.succeeded()

    for _ in range(rounds):
        nested(limit.current - 1)


class other_thread:  # noqa: N801  a context manager, used like a function
    """A slot as another thread takes it: within this one it would not be counted."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self._slot = limit.slot()
        self._limit = limit

    def __enter__(self) -> Any:
        slot = self._slot.__enter__()
        self._limit._this_thread.has_slot = False
        return slot

    def __exit__(self, *exception: Any) -> None:
        self._slot.__exit__(*exception)


def overload(limit: AdaptiveLimit) -> None:
    with limit.slot() as slot:
        slot.overloaded()


def test_an_overload_halves_the_limit_and_says_so(limit: AdaptiveLimit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        overload(limit)
    assert limit.current == START // 2
    assert f"archive:7777 is overloaded: {START // 2} requests at a time instead of {START}" in caplog.text


def test_the_limit_never_falls_below_one_request(limit: AdaptiveLimit) -> None:
    for _ in range(10):
        overload(limit)
    assert limit.current == FLOOR
    with limit.slot():
        pass


def test_one_overload_that_many_requests_meet_counts_once(limit: AdaptiveLimit) -> None:
    with other_thread(limit) as first, other_thread(limit) as second, other_thread(limit) as third:
        for slot in (first, second, third):
            slot.overloaded()
    assert limit.current == START // 2


def test_rounds_of_successes_make_room_for_more_one_by_one(limit: AdaptiveLimit) -> None:
    overload(limit)
    seen = []
    for _ in range(12):
        keep_busy(limit, rounds=1)
        seen.append(limit.current)
    assert seen[-1] > START // 2
    assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(seen))


def test_the_limit_stops_growing_at_its_ceiling(limit: AdaptiveLimit) -> None:
    keep_busy(limit, rounds=3 * CEILING)
    assert limit.current == CEILING


def test_success_of_few_requests_proves_nothing(limit: AdaptiveLimit) -> None:
    for _ in range(100):
        with limit.slot() as slot:
            slot.succeeded()
    assert limit.current == START


def test_no_more_requests_are_under_way_than_the_limit_says(limit: AdaptiveLimit) -> None:
    overload(limit)
    under_way, most, guard = 0, 0, threading.Lock()

    def request() -> None:
        nonlocal under_way, most
        with limit.slot():
            with guard:
                under_way += 1
                most = max(most, under_way)
            threading.Event().wait(0.005)
            with guard:
                under_way -= 1

    with ThreadPoolExecutor(20) as pool:
        for done in [pool.submit(request) for _ in range(60)]:
            done.result()
    assert most == START // 2


def test_a_request_within_a_request_of_one_thread_does_not_wait_for_itself(limit: AdaptiveLimit) -> None:
    while limit.current > FLOOR:
        overload(limit)
    with limit.slot(), limit.slot():
        pass
    with limit.slot():
        pass


def test_clients_of_one_server_share_its_limit_and_those_of_others_do_not() -> None:
    here, there = Address("limit-test", 1), Address("limit-test", 2)
    overload(shared_by_clients_of(here).limit)
    assert NgasClient(*here).requests_at_a_time == NgasClient(*here).requests_at_a_time == START // 2
    assert NgasClient(*there).requests_at_a_time == START


def test_a_forked_child_waits_for_none_of_its_parents_requests() -> None:
    here = Address("fork-test", 1)
    with shared_by_clients_of(here).limit.slot():
        overload(shared_by_clients_of(here).limit)
        child = os.fork()
        if child == 0:
            os._exit(0 if shared_by_clients_of(here).limit.current == START else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNgas]:
    """A server that serves two requests at a time and turns the others away."""
    with EmbeddedNgas(tmp_path_factory.mktemp("small"), limits=Limits(max_requests=2)) as running:
        yield running


@pytest.mark.integration
def test_many_uploads_to_a_small_server_all_arrive_once(
    small_server: EmbeddedNgas, caplog: pytest.LogCaptureFixture
) -> None:
    client = NgasClient(small_server.host, small_server.port, timeout=10, patience=30)
    with ThreadPoolExecutor(12) as pool, caplog.at_level(logging.ERROR):
        stored = list(
            pool.map(lambda n: client.archive(b"%d" % n * 30_000, f"f{n}", f"f{n}.bin", known=None), range(40))
        )
    assert [status.version for status in stored] == [1] * 40
    assert sorted(copy.file_id for copy in client.query("%")) == sorted(f"f{n}" for n in range(40))
    assert client.requests_at_a_time < START


@pytest.mark.integration
def test_a_tree_goes_to_a_small_server_and_comes_back(small_server: EmbeddedNgas, tmp_path: Path) -> None:
    fs = NgasFileSystem(small_server.host, small_server.port, timeout=10, patience=30, threads=12)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"{number}").write_bytes(os.urandom(400_000))
    fs.put(f"{source}/", "/tree", recursive=True)
    fs.get("/tree/", str(tmp_path / "back"), recursive=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }


@pytest.mark.integration
def test_503_and_resets_shrink_the_limit_and_a_server_that_is_down_does_not(wire: Any, server: EmbeddedNgas) -> None:
    client = NgasClient(wire.host, wire.port, timeout=5, patience=5)
    fault: Callable[..., Any] = type(wire.always)
    wire.faults = [fault(instead=b"HTTP/1.0 503 Service Unavailable\r\n\r\n")]
    client.server_status()
    assert client.requests_at_a_time == START // 2
    wire.faults = [fault(cut_up=0), fault(cut_up=0)]  # the first may hit a connection kept from before
    for _ in range(3):
        client.server_status()
    wire.close()
    shrunk = client.requests_at_a_time
    impatient = NgasClient(wire.host, wire.port, timeout=5, patience=0)
    for _ in range(5):
        with pytest.raises(ConnectionError):
            impatient.server_status()
    assert shrunk == client.requests_at_a_time

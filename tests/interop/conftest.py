"""The peers of the interoperation tests, which run only where the environment has them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from dlg_ml_tasks.archive import NgasClient, NgasFileSystem, parse_address
from dlg_ml_tasks.archive.server import EmbeddedNgas

REAL_NGAS = "DLG_ML_TEST_NGAS"


@pytest.fixture(scope="session")
def real_ngas() -> NgasClient:
    """A client of the NGAS server that the environment names. The tests leave nothing there."""
    authority = os.environ.get(REAL_NGAS)
    if not authority:
        pytest.skip(f"{REAL_NGAS}=host:port names no NGAS server to try")
    address = parse_address(authority)
    return NgasClient(address.host, address.port, timeout=30, patience=10)


@pytest.fixture
def real_fs(real_ngas: NgasClient) -> NgasFileSystem:
    return NgasFileSystem(real_ngas.address.host, real_ngas.address.port, skip_instance_cache=True)


@pytest.fixture
def file_id() -> str:
    return f"interop-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNgas]:
    with EmbeddedNgas(tmp_path_factory.mktemp("ngas"), volumes=2) as running:
        yield running

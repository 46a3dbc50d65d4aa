"""The interface for programs does what its OpenAPI document says, with whatever it is asked (schemathesis)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

schemathesis = pytest.importorskip("schemathesis")


@pytest.fixture(scope="session")
def interface(open_site: Any) -> Any:
    return schemathesis.openapi.from_url(f"{open_site.url}/openapi.json")


described = schemathesis.pytest.from_fixture("interface")


@described.parametrize()
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_described(case: Any) -> None:
    case.call_and_validate(timeout=60)

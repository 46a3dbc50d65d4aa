"""The interface for programs does what its OpenAPI document says, with whatever it is asked (schemathesis)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")


def test_every_operation_answers_as_described(open_site: Any) -> None:
    interface = schemathesis.openapi.from_url(f"{open_site.url}/openapi.json")
    operations = [found.ok() for found in interface.get_all_operations()]
    assert operations
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def answers_as_described(case: Any) -> None:
            case.call_and_validate(timeout=60)

        answers_as_described()

"""MLflow as the site sees it: the few REST calls that read, and no other.

Not MLflow's own client: importing it takes 170 MB and two seconds, it repeats failed calls for minutes, and it can write.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown

READS: Final = frozenset(
    {
        ("POST", "experiments/search"),
        ("POST", "runs/search"),
        ("GET", "runs/get"),
        ("GET", "metrics/get-history"),
        ("GET", "registered-models/search"),
        ("GET", "model-versions/search"),
    }
)
"""Every call that this reader makes: searches are POSTs in MLflow because their filters are long."""

_PAGE = 500
_HISTORY_PAGE = 25_000
_NAME = "MLflow"

Json = dict[str, Any]


class MlflowReader:
    """Reads one tracking server. Thread safe.

    timeout: seconds that one call may take.
    """

    def __init__(self, tracking_uri: str, timeout: float = 10.0) -> None:
        self._base = f"{tracking_uri.rstrip('/')}/api/2.0/mlflow"
        self._pool = urllib3.PoolManager(
            maxsize=8,
            # Once more, at once: a kept connection may have been closed by the server meanwhile.
            retries=urllib3.Retry(
                total=1, connect=0, redirect=0, status=0, allowed_methods=None, raise_on_status=False
            ),
            timeout=urllib3.Timeout(connect=min(timeout, 3.0), read=timeout),
            headers=_credentials(),
        )

    def experiments(self) -> list[Json]:
        """Every experiment that is not deleted."""
        return list(self._pages("POST", "experiments/search", {"max_results": 1000}, "experiments"))

    def newest_runs(self, experiments: Sequence[str], limit: int, until: int | None = None) -> list[Json]:
        """At most `limit` runs, newest start first; `until` (milliseconds since 1970) leaves out those that began later."""
        began = f"attributes.start_time <= {until}" if until is not None else ""
        return self._search(experiments, began, "attributes.start_time DESC", limit)

    def changed_runs(self, experiments: Sequence[str], since: int) -> Iterator[Json]:
        """The runs that are under way, and those that ended at or after `since` (milliseconds since 1970)."""
        for condition in ("attributes.status = 'RUNNING'", f"attributes.end_time >= {since}"):
            body = self._search_body(experiments, condition, "attributes.start_time DESC", _PAGE)
            yield from self._pages("POST", "runs/search", body, "runs")

    def run(self, run_id: str) -> Json:
        """One run. Raises NotThere."""
        return dict(self._call("GET", "runs/get", {"run_id": run_id})["run"])

    def history(self, run_id: str, metric: str) -> list[Json]:
        """All values of a metric, each with step and timestamp. Raises NotThere."""
        fields = {"run_id": run_id, "metric_key": metric, "max_results": _HISTORY_PAGE}
        return list(self._pages("GET", "metrics/get-history", fields, "metrics"))

    def models(self) -> list[Json]:
        """Every registered model with its aliases and tags."""
        return list(self._pages("GET", "registered-models/search", {"max_results": 100}, "registered_models"))

    def versions(self) -> Iterator[Json]:
        """Every version of every model with its tags."""
        return self._pages("GET", "model-versions/search", {"max_results": 1000}, "model_versions")

    def _search(self, experiments: Sequence[str], condition: str, order: str, limit: int) -> list[Json]:
        if not experiments:
            return []
        body = self._search_body(experiments, condition, order, limit)
        return list(self._call("POST", "runs/search", body).get("runs", []))

    @staticmethod
    def _search_body(experiments: Sequence[str], condition: str, order: str, limit: int) -> Json:
        return {
            "experiment_ids": list(experiments),
            "filter": condition,
            "order_by": [order],
            "max_results": limit,
            "run_view_type": "ACTIVE_ONLY",
        }

    def _pages(self, method: str, call: str, fields: Mapping[str, Any], key: str) -> Iterator[Json]:
        token = ""
        while True:
            answer = self._call(method, call, {**fields, **({"page_token": token} if token else {})})
            yield from answer.get(key, [])
            token = answer.get("next_page_token", "")
            if not token:
                return

    def _call(self, method: str, call: str, fields: Mapping[str, Any]) -> Json:
        if (method, call) not in READS:
            raise AssertionError(f"{method} {call} is none of the calls that read")
        url = f"{self._base}/{call}"
        try:
            if method == "GET":
                answer = self._pool.request("GET", url, fields=dict(fields))
            else:
                answer = self._pool.request(
                    "POST",
                    url,
                    body=json.dumps(fields),
                    headers={**self._pool.headers, "Content-Type": "application/json"},
                )
        except HTTPError as error:
            raise SourceDown(_NAME, type(error).__name__) from error
        if answer.status in (400, 404):
            raise NotThere(f"{call}: {_message(answer.data)}")
        if answer.status != 200:
            raise SourceDown(_NAME, f"answered {answer.status}")
        try:
            found = json.loads(answer.data)
        except ValueError as error:
            raise SourceDown(_NAME, "answered something that is not JSON") from error
        return dict(found)


def _credentials() -> dict[str, str]:
    """What MLflow's own clients send, from the same variables."""
    user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user:
        return urllib3.make_headers(basic_auth=f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body).get("message", ""))[:200]
    except (ValueError, AttributeError):
        return ""

"""Hands a logical graph to the translator's page by the form that the graph editor EAGLE posts."""

from __future__ import annotations

import json
from html import escape
from typing import Any


def form(graph: dict[str, Any], name: str, partitions: int) -> dict[str, str]:
    """The fields of EAGLE 7's form for ``POST /gen_pgt``; `name` ends in .graph and names the session.

    partitions: how many parts the graph is cut into, one for each node manager.
    """
    return {
        "algo": "metis",
        "lg_name": name,
        "json_data": json.dumps(graph),
        "test": "false",
        "num_islands": "1",
        "num_par": str(partitions),
        "par_label": "Partition",
        "max_load_imb": "100",
        "max_cpu": "8",
        "num_parallel_task_streams": "1",
        "rmode": "0",
    }


def page(graph: dict[str, Any], name: str, translator: str, partitions: int) -> str:
    """An HTML page that sends the graph to the translator's page at the URL `translator` as soon as a browser opens it."""
    fields = "\n".join(
        f'<input type="hidden" name="{escape(field)}" value="{escape(value)}">'
        for field, value in form(graph, name, partitions).items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{escape(name)}</title>
<form method="post" action="{escape(translator)}/gen_pgt">
{fields}
<button>Send {escape(name)} to the translator at {escape(translator)}</button>
</form>
<script>document.forms[0].submit()</script>
</html>
"""

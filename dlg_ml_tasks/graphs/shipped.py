"""The logical graphs that ship; ``dlg-ml graphs write FOLDER`` writes them and the palette into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlg_ml_tasks.components.palette import build_palette, write_json
from dlg_ml_tasks.graphs.build import GraphBuilder, Node

RECIPE = "rfi"
MODEL = "rfi"
CHAMPION = f"models:/{MODEL}@champion"


def lifecycle() -> GraphBuilder:
    """Two nights of data: train on the first, retrain on the second, promote the better model, apply it to both."""
    graph = GraphBuilder(
        "lifecycle", "Train on one night, retrain on the next, promote the better model and apply it to both nights."
    )
    raw_a = graph.task("load_raw", name="load-raw-A", sources="sample:night-A", recipe=RECIPE)
    raw_b = graph.task("load_raw", name="load-raw-B", sources="sample:night-B", recipe=RECIPE)
    data_a = graph.task("preprocess", name="preprocess-A", recipe=RECIPE)
    data_b = graph.task("preprocess", name="preprocess-B", recipe=RECIPE)
    train = graph.task("train", recipe=RECIPE, model_name=MODEL)
    retrain = graph.task("retrain", recipe=RECIPE, model_name=MODEL)
    promote = graph.task("promote", recipe=RECIPE, model_name=MODEL)
    infer = graph.task("infer", recipe=RECIPE, model=CHAMPION)
    graph.link(raw_a, data_a, port="raw")
    graph.link(raw_b, data_b, port="raw")
    graph.link(data_a, train, port="data")
    graph.link(train, retrain, port="model")
    graph.link(data_b, retrain, port="data")
    graph.link(data_a, retrain, port="replay")
    graph.link(retrain, promote, port="model")
    graph.link(data_b, promote, port="data")
    graph.link(data_a, promote, port="earlier")
    graph.link(data_a, infer, port="data")
    graph.link(data_b, infer, port="data")
    graph.link(promote, infer, port="after")
    return graph


def load_preprocess() -> GraphBuilder:
    """Load raw files and make training data of them."""
    graph = GraphBuilder("load_preprocess", "Load raw files into the archive and turn them into training data.")
    _add_data(graph, "sample:night-A")
    return graph


def train() -> GraphBuilder:
    """Train a first model."""
    graph = GraphBuilder("train", "Load raw files, preprocess them and train a model on them.")
    graph.link(_add_data(graph, "sample:night-A"), graph.task("train", recipe=RECIPE, model_name=MODEL), port="data")
    return graph


def retrain() -> GraphBuilder:
    """Train the champion on with new data and let the gate decide."""
    graph = GraphBuilder(
        "retrain", "Load new raw files, train the champion on with them and promote the result if it is better."
    )
    data = _add_data(graph, "sample:night-B")
    new = graph.task("retrain", recipe=RECIPE, model_name=MODEL)
    gate = graph.task("promote", recipe=RECIPE, model_name=MODEL)
    graph.link(data, new, port="data")
    graph.link(new, gate, port="model")
    graph.link(data, gate, port="data")
    return graph


def infer() -> GraphBuilder:
    """Apply the champion to new data."""
    graph = GraphBuilder("infer", "Load raw files, preprocess them and apply the current champion to all of them.")
    data = _add_data(graph, "sample:night-B")
    graph.link(data, graph.task("infer", recipe=RECIPE, model=CHAMPION, held_back_only=False), port="data")
    return graph


def survey() -> GraphBuilder:
    """Many raw files in batches side by side, one model from all of them."""
    graph = GraphBuilder(
        "survey",
        "Load and preprocess the raw files of a survey in batches side by side, train on all of them, promote the model if it is "
        "better than the champion, and apply the champion. Goes on without a failed batch.",
    )
    with graph.scatter("batches", copies=3):
        data = _add_data(graph, "sample:night-A")
    train = graph.task("train", recipe=RECIPE, model_name=MODEL, max_failed_batches=1)
    promote = graph.task("promote", recipe=RECIPE, model_name=MODEL, max_failed_batches=1)
    infer = graph.task("infer", recipe=RECIPE, model=CHAMPION, max_failed_batches=1)
    graph.link(data, train, port="data")
    graph.link(data, promote, port="data")
    graph.link(data, infer, port="data")
    graph.link(train, promote, port="model")
    graph.link(promote, infer, port="after")
    return graph


SHIPPED: tuple[Callable[[], GraphBuilder], ...] = (lifecycle, load_preprocess, train, retrain, infer, survey)


def write_all(folder: Path) -> None:
    """Write every shipped graph and the palette into an existing folder."""
    for make in SHIPPED:
        graph = make()
        graph.write(folder / f"{graph.name}.graph")
    write_json(build_palette(), folder / "dlg_ml_tasks.palette")


def _add_data(graph: GraphBuilder, sources: str) -> Node:
    raw = graph.task("load_raw", sources=sources, recipe=RECIPE)
    data = graph.task("preprocess", recipe=RECIPE)
    graph.link(raw, data, port="raw")
    return data

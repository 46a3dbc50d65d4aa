"""With MLflow or the archive down: what was read is still shown, with a notice; what cannot be shown says when to ask again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any


def test_with_mlflow_down_pages_stay_and_say_so(serve: Any, mlflow_gate: Any, story: Any) -> None:
    site = serve(f"http://127.0.0.1:{mlflow_gate.port}", DLG_ML_WEB_PUBLIC="tagged")
    site.wait_for(lambda: story.model in site.get("/models").text)
    site.wait_for(lambda: site.get("/health").json["complete"])
    with mlflow_gate.closed():
        site.wait_for(lambda: bool(site.get("/health").json["problems"]))
        for path in ("/", "/models", f"/models/{story.model}/2", "/runs", f"/runs/{story.runs['train']}"):
            page = site.get(path)
            assert page.status == 200
            assert "does not answer at the moment" in page.text
        unknown = site.get(f"/runs/{'a' * 32}")
        curves = site.get(f"/runs/{story.runs['train']}/curves")
        for answer in (unknown, curves):
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
    site.wait_for(lambda: not site.get("/health").json["problems"])
    assert "does not answer" not in site.get("/").text
    assert site.get(f"/runs/{story.runs['train']}/curves").status == 200


def test_with_the_archive_down_pages_stay_and_files_say_when_to_ask_again(
    serve: Any, mlflow_gate: Any, archive_gate: Any, story: Any
) -> None:
    # A site of its own: what another test has looked at is kept, and shown without the archive.
    site = serve(f"http://127.0.0.1:{mlflow_gate.port}", DLG_ML_WEB_PUBLIC="tagged", DLG_ML_WEB_RATE="0")
    infer = story.runs["infer"]
    site.wait_for(lambda: site.get(f"/results/{infer}").status == 200)
    with archive_gate.closed():
        assert site.get("/").status == site.get(f"/results/{infer}").status == site.get(f"/runs/{infer}").status == 200
        for path in (f"/runs/{infer}/files", f"/results/{infer}/items/digits.B.4.heldback.npz"):
            answer = site.get(path)
            assert answer.status == 503
            assert answer.headers["retry-after"]
            assert "the archive does not answer" in answer.text.lower()
            assert "127.0.0.1" not in answer.text.replace(site.url, "")
    site.wait_for(lambda: site.get(f"/runs/{infer}/files").status == 200)


def test_a_site_that_never_reached_mlflow_answers_all_the_same(serve: Any) -> None:
    site = serve("http://127.0.0.1:9")
    page = site.get("/")
    assert page.status == 200
    assert "No model has been trained yet" in page.text
    assert "does not answer" in page.text
    assert site.get(f"/runs/{'a' * 32}").status == 503


def test_with_mlflow_hanging_pages_come_at_once_and_only_few_wait_for_it(
    serve: Any, mlflow_gate: Any, story: Any
) -> None:
    site = serve(f"http://127.0.0.1:{mlflow_gate.port}", DLG_ML_WEB_PUBLIC="tagged", DLG_ML_WEB_RATE="0")
    site.wait_for(lambda: story.model in site.get("/models").text)
    site.wait_for(lambda: site.get("/health").json["complete"])
    with mlflow_gate.hanging(), ThreadPoolExecutor(60) as pool:
        # More than the site has threads: were all to wait for MLflow, nobody would get a page.
        curves = [f"/runs/{story.runs[node]}/curves" for node in ("train", "retrain")] * 25
        asking = [pool.submit(site.get, path) for path in curves]
        assert site.get("/").status == site.get(f"/runs/{story.runs['train']}").status == 200
        assert any(not each.done() for each in asking)
        for each in asking:
            assert each.result().status == 503
            assert int(each.result().headers["retry-after"]) > 0
        site.wait_for(lambda: "does not answer at the moment" in site.get("/").text)
    site.wait_for(lambda: not site.get("/health").json["problems"])
    assert site.get(f"/runs/{'a' * 32}").status == 404
    site.wait_for(lambda: site.get(f"/runs/{story.runs['train']}/curves").status == 200)


def test_with_the_archive_hanging_pages_come_at_once_and_files_say_when_to_ask_again(
    site: Any, archive_gate: Any, story: Any
) -> None:
    infer = story.runs["infer"]
    with archive_gate.hanging(), ThreadPoolExecutor(60) as pool:
        asking = [pool.submit(site.get, f"/files/{infer}/results/{number}") for number in range(50)]
        assert site.get("/").status == site.get(f"/results/{infer}").status == 200
        for each in asking:
            assert each.result().status == 503
            assert int(each.result().headers["retry-after"]) > 0
            assert "127.0.0.1" not in each.result().text.replace(site.url, "")
    site.wait_for(lambda: site.get(f"/runs/{infer}/files").status == 200)

"""With MLflow or the archive down: what was read is still shown, with a notice; what cannot be shown says when to ask again."""

from __future__ import annotations

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
    site: Any, archive_gate: Any, story: Any
) -> None:
    infer = story.runs["infer"]
    with archive_gate.closed():
        assert site.get("/").status == site.get(f"/results/{infer}").status == site.get(f"/runs/{infer}").status == 200
        for path in (f"/runs/{infer}/files", f"/results/{infer}/items/digits.B.4.heldback.npz"):
            answer = site.get(path)
            assert answer.status == 503
            assert answer.headers["retry-after"]
            assert "the archive does not answer" in answer.text.lower()
            assert "127.0.0.1" not in answer.text.replace(site.url, "")
    assert site.get(f"/runs/{infer}/files").status == 200


def test_a_site_that_never_reached_mlflow_answers_all_the_same(serve: Any) -> None:
    site = serve("http://127.0.0.1:9")
    page = site.get("/")
    assert page.status == 200
    assert "No model has been trained yet" in page.text
    assert "does not answer" in page.text
    assert site.get(f"/runs/{'a' * 32}").status == 503

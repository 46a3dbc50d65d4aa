from __future__ import annotations

from pathlib import Path

import pytest
from dlg.clients import CompositeManagerClient
from dlg.dropmake.web import translator_rest

from dlg_ml_tasks.components.translator import client_inside, page_script


def test_the_deploy_button_is_set_to_the_island_of_the_stack() -> None:
    script = page_script(Path(translator_rest.file_location) / "main.js", "http://127.0.0.1:9001")
    assert 'const DEFAULT_URL = "http://127.0.0.1:9001/";' in script
    assert "localhost:8001" not in script


def test_another_page_than_the_known_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text('const ISLAND = "http://localhost:8001/";')
    with pytest.raises(RuntimeError, match="another release"):
        page_script(tmp_path / "main.js", "http://127.0.0.1:9001")


def test_an_address_cannot_break_out_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text('const DEFAULT_URL = "http://localhost:8001/";')
    script = page_script(tmp_path / "main.js", 'http://x";alert(1)//')
    assert script == r'const DEFAULT_URL = "http://x\";alert(1)/";'


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_in_a_container_the_browsers_address_of_the_island_is_called_by_its_inner_one(host: str) -> None:
    client = client_inside(CompositeManagerClient, "http://127.0.0.1:18001", "dlg-dim", 8001)
    island, another = client(host=host, port=18001), client(host="elsewhere", port=8001)
    assert (island.host, island.port) == ("dlg-dim", 8001)
    assert (another.host, another.port) == ("elsewhere", 8001)

from __future__ import annotations

import pytest

from dlg_ml_tasks.archive import Address, parse_address, split_url


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", Address("localhost", 7777)),
        ("Archive.Example.org:7780", Address("archive.example.org", 7780)),
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("[::1]:7777", Address("[::1]", 7777)),
        ("ngas_1", Address("ngas_1", 7777)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":7777", "host:0", "host:65536", "host:x", "ho st", "host/x", "-host", "a:1:2", "::1"]
)
def test_anything_else_is_refused_with_the_value_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not an NGAS address"):
        parse_address(text)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="DLG_ML_NGAS_PASSWORD") as caught:
        split_url("ngas://alice:s3cret@archive:7777/a")
    assert "s3cret" not in str(caught.value)
    assert "alice" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/", "/a b/c#d?e=f%20g;h", "/日本"])
def test_the_path_of_a_url_is_literal(path: str) -> None:
    assert split_url(f"ngas://archive:1{path}") == (Address("archive", 1), path)


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="does not begin with ngas://"):
        split_url("http://archive/a")

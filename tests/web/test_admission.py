"""Who is let in, by itself: names, addresses, rates; and a breaker in front of what hangs."""

from __future__ import annotations

import pytest

from dlg_ml_tasks.web.admission import Hosts, Rate
from dlg_ml_tasks.web.settings import Settings, SettingsError, settings_from
from dlg_ml_tasks.web.sources.breaker import Breaker
from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown

MLFLOW = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "header", ["localhost", "localhost:8050", "127.0.0.1:1", "[::1]:8050", "10.0.0.7", "Results.Example.org:80"]
)
def test_the_sites_own_names_and_addresses_are_let_in(header: str) -> None:
    assert Hosts(["results.example.org"]).allow(header)


@pytest.mark.parametrize(
    "header",
    [
        "evil.example",
        "results.example.org.evil.example",
        "127.0.0.1.nip.io",
        "",
        "a b",
        "localhost:x",
        "x@localhost",
        "[::1",
    ],
)
def test_another_name_that_leads_here_is_not(header: str) -> None:
    assert not Hosts(["results.example.org"]).allow(header)
    assert Hosts(["*"]).allow("evil.example")


def test_an_address_gets_its_rate_and_is_told_when_to_come_again() -> None:
    clock = Clock()
    rate = Rate(60, clock)
    assert [rate.wait("10.0.0.1") for _ in range(61)] == [0] * 60 + [1]
    assert rate.wait("10.0.0.2") == 0
    clock.now += 2
    assert [rate.wait("10.0.0.1") for _ in range(3)] == [0, 0, 1]


def test_a_whole_ipv6_network_is_one_client() -> None:
    rate = Rate(2, Clock())
    assert [bool(rate.wait(f"2001:db8::{number}")) for number in range(4)] == [False, False, True, True]
    assert rate.wait("2001:db8:0:1::1") == 0
    assert [bool(rate.wait(each)) for each in ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1")] == [False, False, True]


def test_no_flood_of_addresses_fills_the_memory() -> None:
    rate = Rate(1, Clock())
    for number in range(30_000):
        rate.wait(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(rate._left) <= 10_000


def test_what_an_operator_writes_is_checked() -> None:
    found = settings_from({**MLFLOW, "DLG_ML_WEB_TRUSTED_PROXIES": "10.0.0.0/8, ::1", "DLG_ML_WEB_RATE": "0"})
    assert (found.proxies, found.rate, found.public) == (("10.0.0.0/8", "::1"), 0, "all")
    assert Settings(tracking_uri="http://x", url="https://a.example/b", hosts=("c",)).names == ("c", "a.example")
    for variable, value in (
        ("DLG_ML_WEB_TRUSTED_PROXIES", "*"),
        ("DLG_ML_WEB_TRUSTED_PROXIES", "proxy.example"),
        ("DLG_ML_WEB_HOSTS", "a.example:80"),
        ("DLG_ML_WEB_RATE", "-1"),
        ("DLG_ML_WEB_PUBLIC", "none"),
    ):
        with pytest.raises(SettingsError, match=variable):
            settings_from({**MLFLOW, variable: value})


def test_of_a_source_that_is_down_only_one_asks_whether_it_is_back() -> None:
    clock = Clock()
    breaker = Breaker("MLflow", most=3, rest_s=2, clock=clock)
    with pytest.raises(SourceDown), breaker.asking():
        raise SourceDown("MLflow", "cut")
    clock.now += 1
    with pytest.raises(SourceDown, match="cut"), breaker.asking():
        pytest.fail("it was asked while it rests")
    clock.now += 2
    with breaker.asking(), pytest.raises(SourceDown), breaker.asking():
        pytest.fail("a second one asked")
    with breaker.asking(), breaker.asking():
        pass


def test_of_a_source_that_hangs_no_more_than_a_few_wait() -> None:
    breaker = Breaker("MLflow", most=2)
    with breaker.asking(), breaker.asking(), pytest.raises(SourceDown, match="busy"), breaker.asking():
        pytest.fail("a third one waits")
    with breaker.asking():
        pass


@pytest.mark.parametrize("error", [NotThere("x"), SourceDown("the archive", "one damaged file", whole=False)])
def test_one_thing_that_is_not_there_does_not_close_the_source(error: Exception) -> None:
    breaker = Breaker("the archive", most=2)
    with pytest.raises(type(error)), breaker.asking():
        raise error
    with breaker.asking():
        pass

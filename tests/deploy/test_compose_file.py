"""What docker-compose.yml promises, read from the file; no engine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docker-compose.yml").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
PROFILES = ("default", "embedded", "gpu", "embedded-gpu")

each_service = pytest.mark.parametrize("name", SERVICES)


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_itself_accepts_the_file(profile: str) -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("no `docker compose` on this machine to check the file with")
    done = subprocess.run(
        ["docker", "compose", "--env-file", ".env.example", "--profile", profile, "config", "--quiet"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_has_one_archive_two_node_managers_and_all_the_rest(profile: str) -> None:
    active = {name for name, each in SERVICES.items() if profile in each.get("profiles", PROFILES)}
    assert len(active & {"ngas", "ngas-embedded"}) == 1
    assert {SERVICES[name]["hostname"] for name in active if "-nm" in name} == {"dlg-nm1", "dlg-nm2"}
    assert len([name for name in active if "-nm" in name]) == 2
    assert {"postgres", "mlflow", "dlg-dim", "dlg-tm", "results"} <= active


@each_service
def test_nothing_is_published_beyond_loopback(name: str) -> None:
    service = SERVICES[name]
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service.get("network_mode") is None
    assert not service.get("privileged")


def test_the_inner_network_leads_nowhere_and_the_node_managers_are_in_no_other() -> None:
    assert DOCUMENT["networks"]["inside"]["internal"] is True
    for name, service in SERVICES.items():
        assert "inside" in service["networks"]
        if "-nm" in name or name == "postgres":
            assert list(service["networks"]) == ["inside"]


@each_service
def test_every_service_is_confined_limited_checked_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["deploy"]["resources"]["limits"]["pids"]
    assert service["healthcheck"]["test"]


@each_service
def test_only_those_whose_image_forces_it_begin_as_root(name: str) -> None:
    privileges = set(SERVICES[name].get("cap_add", []))
    if name not in ("ngas", "postgres"):
        assert not privileges
        assert "user" not in SERVICES[name], "the image's own, which has no privileges"
    assert privileges <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"}


@each_service
def test_images_have_a_version_and_data_lies_in_named_volumes(name: str) -> None:
    service = SERVICES[name]
    image = service["image"]
    assert re.search(r":-[^}]+[:.][^}]+\}$", image), f"{image} names no version"
    if name != "ngas":  # its makers publish no other
        assert "latest" not in image
    for volume in service.get("volumes", []):
        source = re.sub(r"\$\{[^}]*\}", ".", volume).split(":")[0]
        assert source in DOCUMENT["volumes"] or volume.endswith(":ro")


@each_service
def test_no_password_stands_in_an_environment_or_command(name: str) -> None:
    service = SERVICES[name]
    environment = service.get("environment", {})
    assert not [key for key in environment if "PASSWORD" in key and not key.endswith("_FILE")]
    assert "postgres_password" in DOCUMENT["secrets"]
    assert "@postgres" not in str(service.get("command"))


@each_service
def test_what_a_service_waits_for_exists_and_has_a_health_check(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert SERVICES[needed]["healthcheck"]
        shared = set(SERVICES[name].get("profiles", PROFILES)) <= set(SERVICES[needed].get("profiles", PROFILES))
        assert shared or how.get("required") is False


def test_every_setting_is_in_the_example_and_has_the_same_default_there() -> None:
    example = dict(
        line.split("=", 1) for line in (TOP / ".env.example").read_text().splitlines() if re.match(r"[A-Z_]+=", line)
    )
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", TEXT))
    optional = {"MLFLOW_ALLOWED_HOSTS", "POSTGRES_PASSWORD_PATH"}
    assert used.keys() - optional == example.keys() - {"COMPOSE_PROFILES"}
    assert {key: used[key] for key in example.keys() - {"COMPOSE_PROFILES"}} == {
        key: value for key, value in example.items() if key != "COMPOSE_PROFILES"
    }

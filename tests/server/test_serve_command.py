"""The command line of the server, and of its users file."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from dlg_ml_tasks.archive.server.__main__ import byte_count, main
from dlg_ml_tasks.archive.server.users import Users, password_matches
from dlg_ml_tasks.cli.main import app

SERVE = (
    [sys.executable, "-m", "dlg_ml_tasks.archive.server"],
    [sys.executable, "-m", "dlg_ml_tasks.cli.main", "ngas", "serve"],
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("10GB", 10**10), ("1.5TiB", 3 * 2**39), ("500 MB", 5 * 10**8), ("1kB", 1000), ("2KiB", 2048)],
)
def test_a_size_is_written_in_bytes_or_with_a_unit(text, size):
    assert byte_count(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "10Q", "1,5GB", "0", "1e3", "10 G B"])
def test_any_other_size_is_refused_with_an_example(text):
    with pytest.raises(argparse.ArgumentTypeError, match="write for example 500MB"):
        byte_count(text)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "the following arguments are required: --root"),
        (["--root", "r", "--port", "65536"], "'65536' must be a port from 0 to 65535"),
        (["--root", "r", "--volumes", "0"], "'0' must be a whole number above 0"),
        (["--root", "r", "--max-requests", "many"], "'many' must be a whole number above 0"),
        (["--root", "r", "--pull-hosts", "*.example"], "'*.example' is no host"),
        (["--root", "r", "--pull-hosts", "http://a.example/"], "is no host"),
        (["--root", "r", "--subscriber-hosts", "a.example:0"], "no port between 1 and 65535"),
        (["--root", "r", "--root-dir", "x"], "unrecognized arguments"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(arguments, fault, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert fault in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_host_beyond_loopback_is_refused_until_somebody_says_who_may_come_in(root, capsys):
    assert main(["--root", str(root), "--port", "0", "--host", "0.0.0.0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--host 0.0.0.0 lets the whole network in" in line
    assert "--users FILE" in line
    assert "--open-to-network" in line


@pytest.mark.integration
def test_both_ways_to_start_the_server_have_the_same_options_and_teach_them():
    helps = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout for command in SERVE
    ]
    flags = [{word.strip("[],") for word in text.split() if word.strip("[],").startswith("--")} for text in helps]
    assert flags[0] == flags[1]
    assert {
        "--root",
        "--users",
        "--capacity",
        "--volumes",
        "--max-requests",
        "--pull-hosts",
        "--subscriber-hosts",
    } < flags[0]
    for text in helps:
        assert "dlg-ml ngas user" in text
        assert "TLS" in text
        assert "(default 7777)" in text


@pytest.mark.integration
def test_a_server_with_users_may_listen_to_the_network(run_server, connect, tmp_path):
    file = tmp_path / "users.json"
    Users(open_to_all=("STATUS",)).write(file)
    with run_server("--host", "0.0.0.0", "--users", str(file)) as server:
        assert "no authentication" not in server.log.read_text()
        wire = connect(server.url.replace("0.0.0.0", "127.0.0.1"))
        assert wire.get("STATUS").code == 200
        assert wire.get("QUERY", query="files_list").code == 401


def ngas_user(*arguments, password="geheim"):
    return CliRunner().invoke(app, ["ngas", "user", *arguments], input=f"{password}\n")


def test_a_user_is_added_changed_and_removed_and_the_others_stay(tmp_path):
    file = tmp_path / "users.json"
    assert ngas_user(str(file), "ann").exit_code == 0
    assert ngas_user(str(file), "bob", "--commands", "RETRIEVE, STATUS", "--open-to-all", "HELP").exit_code == 0
    before = Users.read(file)
    assert before.users["ann"].commands == ("*",)
    assert before.users["bob"].commands == ("RETRIEVE", "STATUS")
    assert before.open_to_all == ("HELP",)
    assert password_matches(b"geheim", before.users["ann"].password)
    assert ngas_user(str(file), "bob", "--commands", "STATUS", password="new").exit_code == 0
    after = Users.read(file)
    assert after.users["ann"] == before.users["ann"]
    assert password_matches(b"new", after.users["bob"].password)
    assert ngas_user(str(file), "ann", "--remove").exit_code == 0
    assert set(Users.read(file).users) == {"bob"}


@pytest.mark.parametrize(
    ("arguments", "password", "fault"),
    [
        (["bob", "--commands", "QUERRY"], "x", "'QUERRY' is no command of the embedded server"),
        (["b:b"], "x", "'b:b' is no user name"),
        (["bob"], "", "the password is empty"),
        (["bob", "--remove"], "x", "has no user 'bob'; it has 'ann'"),
    ],
)
def test_a_wrong_user_is_refused_and_the_file_stays_as_it_was(tmp_path, arguments, password, fault):
    file = tmp_path / "users.json"
    ngas_user(str(file), "ann")
    before = file.read_bytes()
    refused = ngas_user(str(file), *arguments, password=password)
    assert refused.exit_code == 1
    assert fault in str(refused.exception) + refused.output
    assert file.read_bytes() == before
    assert json.loads(before)["users"].keys() == {"ann"}

"""A role answers how it is, over HTTP and in its file, also while its loop hangs and whoever connects."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rft.telemetry import status_server
from rft.telemetry.activity import Activity, ActivityState
from rft.telemetry.health import Health, health_file, health_pages, make_health, read_health, write_health
from rft.telemetry.status_server import StatusServer

WAITING = ActivityState("waiting", "tasks", 40.0, 7, 41.0, 0.1)


def health_of(state: ActivityState, *, stalled: bool = False, stopping: bool = False) -> Health:
    return make_health("explorer-0", 12, state, 5.0, url=None, stalled=stalled, stopping=stopping)


@pytest.mark.parametrize(
    ("health", "alive", "ready"),
    [
        (health_of(WAITING), True, True),
        (health_of(replace(WAITING, kind="working")), True, True),
        (health_of(Activity().state()), True, False),
        (health_of(replace(WAITING, outage=True)), True, False),
        (health_of(WAITING, stopping=True), True, False),
        (health_of(WAITING, stalled=True), False, False),
    ],
    ids=["waiting", "working", "starting", "broker away", "stopping", "stalled"],
)
def test_a_role_is_alive_unless_it_stands_still_and_ready_when_it_works(health, alive, ready):
    pages = health_pages(lambda: health)
    assert pages["/healthz"]().status == (200 if alive else 503)
    assert pages["/readyz"]().status == (200 if ready else 503)


@pytest.fixture
def server() -> Iterator[StatusServer]:
    server = StatusServer(("127.0.0.1", 0), health_pages(lambda: health_of(WAITING)))
    yield server
    server.close()


def get(server: StatusServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(server.url + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_health_names_role_state_progress_and_what_is_waited_for(server):
    status, body = get(server, "/healthz?verbose")
    found = json.loads(body)
    assert status == 200
    assert found["role"] == "explorer-0"
    assert found["state"] == "waiting"
    assert (found["progress"], found["progress_age_s"]) == (7, 41.0)
    assert (found["waits_for"], found["waits_s"]) == ("tasks", 40.0)
    assert get(server, "/readyz")[0] == 200


def test_only_the_pages_are_served_and_only_to_be_read(server):
    assert get(server, "/")[0] == 404
    assert get(server, "/../../etc/passwd")[0] == 404
    assert get(server, "/healthz", "POST")[0] == 501


def test_silent_and_many_clients_do_not_keep_the_server_from_answering(server, monkeypatch):
    monkeypatch.setattr(status_server._Handler, "timeout", 0.5)
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    silent = [socket.create_connection(address) for _ in range(3 * status_server.MAX_CONNECTIONS)]
    try:
        for connection in silent:
            connection.settimeout(10)
            assert connection.recv(1) == b"", "it is closed, at once or after the limit"
        assert get(server, "/healthz")[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_a_file_is_read_as_it_was_written_and_only_from_its_own_process(tmp_path):
    path = health_file(tmp_path, "explorer-0")
    write_health(path, health_of(WAITING))
    assert read_health(path, pid=12) == health_of(WAITING)
    assert read_health(path, pid=13) is None
    assert [file.name for file in path.parent.iterdir()] == ["explorer-0.json"]


def test_a_file_with_a_field_of_another_type_is_none(tmp_path):
    write_health(tmp_path / "x.json", replace(health_of(WAITING), waits_s="long"))
    assert read_health(tmp_path / "x.json") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"role": "x"}', "\x00", "[" * 1000])
def test_a_file_that_is_no_health_is_none(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    assert read_health(tmp_path / "x.json") is None
    assert read_health(tmp_path / "missing.json") is None

"""The client handles answers that the tests' real registry does not give: refusals, overload, other servers' pages."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from rft.config import Config, RegistryConfig
from rft.config_sources import resolve
from rft.errors import ConfigError, RegistryError, RegistryUnreachableError
from rft.log.registry import Registry
from schemas.registry import RegistryClient


class Answers(http.server.ThreadingHTTPServer):
    """Answers each request with the next of ``script``: (status, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[tuple[int, str]] = []
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        status, body = self.server.script.pop(0)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


SCHEMA = json.dumps({"schema": '"string"'})


def test_name_and_password_are_sent_and_never_shown(answers):
    answers.script = [(200, SCHEMA), (401, "{}")]
    client = RegistryClient(answers.url, username="me", password="hunter2")
    assert client.schema(5) == '"string"'
    assert answers.asked == [("/schemas/ids/5", "Basic " + base64.b64encode(b"me:hunter2").decode())]
    with pytest.raises(RegistryError, match=r"refuses access \(401\): check registry.username") as caught:
        client.schema(5)
    assert "hunter2" not in str(caught.value)


def test_a_schema_is_looked_up_by_guid(answers):
    answers.script = [(200, SCHEMA)]
    assert RegistryClient(answers.url).schema("0b-guid") == '"string"'
    assert answers.asked[0][0] == "/schemas/guids/0b-guid"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_request_to_a_busy_registry_is_repeated(answers, status):
    answers.script = [(status, '{"message": "not  now"}'), (200, SCHEMA)]
    assert Registry(RegistryConfig(url=answers.url)).find(5) == '"string"'
    answers.script = [(status, '{"message": "not  now"}')]
    with pytest.raises(RegistryUnreachableError, match=f"answers {status} to /schemas/ids/6: not now"):
        RegistryClient(answers.url).schema(6)


def test_found_and_unknown_ids_are_not_looked_up_again(answers):
    answers.script = [(200, SCHEMA), (404, '{"error_code": 40403}')]
    registry = Registry(RegistryConfig(url=answers.url))
    assert [registry.find(5) for _ in range(3)] == ['"string"'] * 3
    assert [registry.find(6) for _ in range(3)] == [None] * 3
    assert len(answers.asked) == 2


@pytest.mark.parametrize("answer", [(200, "<html>welcome</html>"), (302, "http://elsewhere/"), (400, "what?")])
def test_a_server_that_is_no_registry_is_named(answers, answer):
    answers.script = [answer]
    with pytest.raises(RegistryError, match=answers.url) as caught:
        RegistryClient(answers.url).schema(5)
    assert not isinstance(caught.value, RegistryUnreachableError)


def test_a_registry_that_is_not_there_is_named_with_the_cause():
    with socket.socket() as taken:  # bound, so that no other process listens there meanwhile
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RegistryUnreachableError, match=f"{url}: Connection refused"):
            RegistryClient(url).schema(5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"url": "registry:8081"}, "http:// or https://"),
        ({"url": "http://me:secret@registry"}, "must not hold a user"),
        ({"url": "http://r", "password": "secret"}, "needs username"),
    ],
)
def test_a_wrong_section_is_explained_without_its_secrets(settings, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        resolve([("run.toml", {"registry": settings})])
    assert "secret" not in str(caught.value).replace("SecretStr", "")


def test_without_a_registry_nothing_is_asked():
    from rft.log.registry import open_registry, writer_ids

    assert open_registry(Config()) is None
    assert writer_ids(Config()) == {}

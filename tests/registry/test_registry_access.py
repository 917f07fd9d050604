"""A registry that wants a bearer token and a client certificate gets them. What it refuses is said once, at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import KEY_PASSWORD, make_certificates
from registry_process import RegistryProcess
from registry_proxy import RegistryProxy

from rft.config import Config, RegistryConfig
from rft.config_sources import resolve, unmasked_environment
from rft.config_toml import resolved_toml
from rft.errors import ConfigError, RegistryError, RegistryUnreachableError
from rft.log.reader import EventReader
from rft.log.registry import Registry, writer_ids
from rft.log.writer import EventWriter
from schemas.events import Task
from schemas.registry import RegistryClient

TOKEN = "registry-hunter2"
AccessConfig = Callable[..., Config]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry-pki")
    make_certificates(folder)
    return folder


@pytest.fixture
def proxy(registry: RegistryProcess, pki: Path) -> Iterator[RegistryProxy]:
    with RegistryProxy(registry.url, pki, TOKEN) as server:
        yield server


@pytest.fixture
def access(registry_config: AccessConfig, proxy: RegistryProxy, pki: Path) -> AccessConfig:
    """``access(**settings)``: the right settings, with changes; files are named within the folder of certificates."""

    def make(**settings: Any) -> Config:
        right = {"ssl_cafile": "ca.pem", "ssl_certfile": "client.pem", "ssl_keyfile": "client.key"}
        files = {name: path and pki / path for name, path in (right | settings).items() if name in right}
        return registry_config(**{"url": proxy.url, "token": TOKEN} | settings | files)

    return make


@pytest.mark.registry
def test_with_token_and_certificate_events_are_written_and_read(access: AccessConfig, proxy: RegistryProxy) -> None:
    config = access()
    task = Task("train-00000003", 3, "train", "s", "löwe>", None, 8, 64, 1.0, 1.0, 0, 0, 1, "{}")
    with EventWriter(config, "writer") as writer:
        writer.send("tasks", task)
    with EventReader(config, "reader", ["tasks"]) as reader:
        [event] = reader.poll(10)
    assert event.value is not None
    assert event.value[0] == 0
    # A process that has seen no schema yet.
    assert Registry(config.registry).look_up(int.from_bytes(event.value[1:5], "big")) is not None
    assert event.record(Task) == task
    assert proxy.requests > 10


@pytest.mark.registry
def test_the_key_of_the_certificate_may_have_a_password(access: AccessConfig) -> None:
    config = access(ssl_keyfile="client-encrypted.key", ssl_password=KEY_PASSWORD)
    assert writer_ids(config)
    assert unmasked_environment(config) == {
        "RFT_REGISTRY__TOKEN": TOKEN,
        "RFT_REGISTRY__SSL_PASSWORD": KEY_PASSWORD,
    }
    assert "hunter2" not in resolved_toml(config)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "wrong token": ({"token": "registry-hunter3"}, r"refuses access \(401\): check registry\.token"),
    "no token": ({"token": None}, r"refuses access \(401\): check registry\.username and registry\.password"),
    "no certificate": (
        {"ssl_certfile": None, "ssl_keyfile": None},
        r"client certificate.* check registry\.ssl_certfile",
    ),
    "certificate of another CA": (
        {"ssl_certfile": "stranger.pem", "ssl_keyfile": "stranger.key"},
        r"client certificate that it trusts: check registry\.ssl_certfile",
    ),
    "another CA": ({"ssl_cafile": "other-ca.pem"}, r"not signed by a CA we know.*Set registry\.ssl_cafile"),
    "the system's CAs": ({"ssl_cafile": None}, r"not signed by a CA we know.*Set registry\.ssl_cafile"),
    "no file": ({"ssl_certfile": "none.pem"}, r"registry\.ssl_certfile: there is no file"),
    "another key": ({"ssl_keyfile": "stranger.key"}, r"registry\.ssl_certfile, registry\.ssl_keyfile: .* no matching"),
    "no password": ({"ssl_keyfile": "client-encrypted.key"}, r"Set RFT_REGISTRY__SSL_PASSWORD"),
}


@pytest.mark.registry
@pytest.mark.parametrize("fault", REFUSED)
def test_what_the_registry_refuses_is_one_clear_error_and_not_retried(
    access: AccessConfig, proxy: RegistryProxy, fault: str
) -> None:
    settings, message = REFUSED[fault]
    config = access(**settings, patience_s=60.0)
    started = time.monotonic()
    with pytest.raises(RegistryError, match=message) as caught:
        EventWriter(config, "writer")
    assert time.monotonic() - started < 15
    assert not isinstance(caught.value, RegistryUnreachableError)
    assert proxy.requests <= 1
    assert "\n" not in str(caught.value)
    assert "hunter" not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.registry
def test_access_that_is_withdrawn_is_named_too(access: AccessConfig, proxy: RegistryProxy) -> None:
    registry = Registry(access(patience_s=60.0).registry)
    assert registry.find(10**6) is None
    proxy.token, proxy.refusal, before = "another", 403, proxy.requests
    with pytest.raises(RegistryError, match=r"refuses access \(403\): check registry\.token"):
        registry.find(10**6 + 1)
    assert proxy.requests == before + 1


@pytest.mark.registry
def test_a_registry_without_tls_is_named(registry: RegistryProcess) -> None:
    with pytest.raises(RegistryError, match=r"speaks no TLS: registry\.url must begin with http://"):
        RegistryClient(registry.url.replace("http://", "https://")).schema(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"token": "hunter2", "username": "me", "password": "hunter2"},
            "token, or username and password, but not both",
        ),
        ({"token": "hunter2\n"}, "newline at its end"),
        ({"ssl_keyfile": "client.key"}, "ssl_keyfile needs ssl_certfile"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve([("run.toml", {"registry": {"url": "https://r", **settings}})])
    assert "hunter2" not in str(caught.value)


def test_the_token_is_in_no_representation() -> None:
    config = RegistryConfig(url="https://r", token=TOKEN)
    assert TOKEN not in f"{config!r}{config}{config.model_dump_json()}"

"""The roles of a run share one secret, which only their user can read."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from producers.gateway.secret import served_secret, token_file
from rft.config import Config
from rft.errors import ConfigError


def config_of(folder: Path, **gateway: object) -> Config:
    return Config.model_validate({"run": {"folder": str(folder), "name": "r"}, "gateway": {"serve": True, **gateway}})


def test_roles_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    config, found, start = config_of(tmp_path), list[str](), threading.Barrier(16)

    def ask() -> None:
        start.wait()
        found.append(served_secret(config))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert len(found[0]) == 64
    path = token_file(config)
    assert path.read_text().strip() == found[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["token"]


def test_a_variable_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, token_env="THE_TOKEN")
    monkeypatch.setenv("THE_TOKEN", "mine")
    assert served_secret(config) == "mine"
    assert not token_file(config).exists()
    monkeypatch.setenv("THE_TOKEN", "")
    with pytest.raises(ConfigError, match="THE_TOKEN"):
        served_secret(config)


def test_a_file_that_holds_no_secret_is_an_error(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    token_file(config).parent.mkdir(parents=True)
    token_file(config).write_text("short\n")
    with pytest.raises(ConfigError, match="too short"):
        served_secret(config)

"""``rft schemas`` and roles with a registry: a fault is reported once, with JSON path, rule and remedy."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import check_refusal, rft

from rft.config import Config
from rft.log.registry import subject_of
from schemas.load import FOLDER, current
from schemas.registry import RegistryClient


@pytest.mark.parametrize(
    "words",
    [("dlq", verb) for verb in ("list", "show", "retry", "discard")]
    + [("schemas", verb) for verb in ("check", "freeze", "register")],
)
def test_every_command_has_a_purpose_and_an_example(words):
    answer = rft(*words, "--help")
    assert answer.returncode == 0
    assert f"Example: rft {' '.join(words)}" in answer.stdout


def test_the_schemas_of_this_release_pass():
    answer = rft("schemas", "check")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Experience.avsc: ok" in answer.stdout
    assert rft("schemas", "check", FOLDER / "TrainingStep.avsc").returncode == 0


def test_an_incompatible_change_is_named_with_file_path_rule_and_remedy(tmp_path):
    raw = json.loads((FOLDER / "Experience.avsc").read_text())
    raw["fields"][3]["type"] = "string"
    raw["fields"].append({"name": "hint", "type": "string"})
    path = tmp_path / "Experience.avsc"
    path.write_text(json.dumps(raw))
    answer = rft("schemas", "check", path)
    assert answer.returncode == 1
    lines = answer.stdout.splitlines()
    assert any("Experience.avsc: /fields/3/type (field sample): type_mismatch" in line for line in lines)
    assert any("(field hint): reader_field_missing_default_value" in line for line in lines)
    # Once for each version that was ever written.
    versions = len(list((FOLDER / "history").glob("Experience.v*.avsc")))
    assert sum("give the new field a" in line for line in lines) == versions


def test_a_file_without_a_schema_is_refused_with_one_message(tmp_path):
    (tmp_path / "broken.avsc").write_text('{\n"type": }')
    check_refusal(rft("schemas", "check", tmp_path / "broken.avsc"), 1, "broken.avsc: line 2: not JSON")
    check_refusal(rft("schemas", "check", tmp_path / "none.avsc"), 1, "none.avsc: cannot be read: No such file")


@pytest.fixture
def configured(log_config: Config, tmp_path: Path) -> Callable[..., Path]:
    """A configuration file on the test's log with that section registry."""

    def write(**settings: Any) -> Path:
        path = tmp_path / "run.toml"
        section = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
        path.write_text(
            f'[broker]\nkind = "external"\nbootstrap_servers = "{log_config.broker.bootstrap_servers}"\n'
            f'[log]\nnamespace = "{log_config.log.namespace}"\n[run]\nfolder = "{tmp_path}"\n[registry]\n{section}\n'
        )
        return path

    return write


@pytest.mark.registry
def test_an_incompatible_schema_reaches_the_operator_as_one_error(log_config, configured, registry):
    raw = json.loads(current("Task").text)
    raw["fields"] = [field | ({"type": "string"} if field["name"] == "samples" else {}) for field in raw["fields"]]
    subject = subject_of(log_config, "tasks")
    RegistryClient(registry.url).register(subject, json.dumps(raw))
    path = configured(url=registry.url)
    expected = (f"subject {subject}", "STRING at /fields/6/type", "rft schemas check")
    check_refusal(rft("schemas", "register", path), 1, *expected)
    answer = rft("conductor", path)
    assert answer.returncode == 1
    [line] = [line for line in answer.stderr.splitlines() if " ERROR " in line]
    assert "IncompatibleSchemaError: schema registry" in line
    assert all(text in line for text in expected)
    assert "Traceback" not in answer.stderr


@pytest.mark.registry
def test_schemas_can_be_registered_beforehand(log_config, configured, registry):
    path = configured(url=registry.url, auto_register=False)
    assert "rft schemas register" in rft("conductor", path).stderr
    answer = rft("schemas", "register", path)
    assert answer.returncode == 0, answer.stderr
    assert f"{subject_of(log_config, 'ready')}: schema id " in answer.stdout
    assert "ok   schema registry" in rft("doctor", path).stdout


def test_a_registry_that_is_not_there_is_named_with_the_cause(configured):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    path = configured(url=url, patience_s=0)
    check_refusal(rft("schemas", "register", path), 1, f"schema registry {url}: Connection refused")
    assert f"fail schema registry: schema registry {url}: Connection refused" in rft("doctor", path).stdout
    check_refusal(rft("schemas", "register", configured()), 2, "registry.url is not set")

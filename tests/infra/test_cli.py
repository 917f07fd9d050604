"""The ``rft`` command: exit codes, and one clear message within ten seconds when something is wrong."""

from __future__ import annotations

import socket
import string
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from typer.main import get_command

from infra import cli
from tests.inputs.small_model import make_small_model

RFT = str(Path(sys.executable).with_name("rft"))
COMMANDS = ("run", "import", "importer", "conductor", "explorer", "processor", "trainer", "doctor", "topics", "report")


def rft(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [RFT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "200"} | (env or {}),
    )


def all_commands() -> dict[str, list[str]]:
    """The help texts of every command, as they are written, by the words that call it."""
    found: dict[str, list[str]] = {}

    def collect(built: Any, path: str) -> None:
        texts = [built.help, *(getattr(parameter, "help", None) for parameter in built.params)]
        found[path] = [text for text in texts if text]
        for name, sub_command in getattr(built, "commands", {}).items():
            collect(sub_command, f"{path} {name}".strip())

    collect(get_command(cli.app), "")
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A valid configuration, with a folder that looks like a model."""
    model = make_small_model(tmp_path / "model", context=2048, characters=string.printable)
    path = tmp_path / "run.toml"
    path.write_text(f'[run]\nfolder = "{tmp_path}/runs"\n[policy]\nmodel = "{model}"\n')
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_purpose_and_an_example(command):
    answer = rft(command, "--help")
    assert answer.returncode == 0
    assert f"Example: rft {command} " in answer.stdout


@pytest.mark.parametrize("path", sorted(all_commands()))
def test_help_shows_every_word_of_its_texts(path: str) -> None:
    """Brackets included, which rich takes for markup: ``[[imports]]``, ``[trainers.<key>]``."""
    written = all_commands()[path]
    answer = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(cli.command(), [*path.split(), "--help"])
    assert answer.exit_code == 0
    shown = answer.output.replace("│", " ").split()
    lost = Counter(word for text in written for word in text.split()) - Counter(shown)
    assert not lost, answer.output


def test_help_comes_at_once_and_names_every_command():
    started = time.monotonic()
    answer = rft("--help")
    assert time.monotonic() - started < 20  # 0.2 s where nothing else runs
    assert all(f" {command} " in answer.stdout for command in COMMANDS)
    assert "Exit codes: 0 done, 1 failed, 2 bad configuration, 130 interrupted" in answer.stdout


def test_help_imports_none_of_the_heavy_libraries():
    code = "import sys, infra.cli; print({'torch', 'transformers', 'faust', 'kafka', 'pydantic'} & sys.modules.keys())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_dry_run_prints_the_resolved_tree_with_secrets_masked(config):
    answer = rft(
        "run", config, "--dry-run", "--trainer.steps", "7", "--broker.kind=external",
        "--broker.bootstrap_servers", "kafka:9092", "--broker.security_protocol", "SASL_SSL",
        "--broker.sasl_username", "me", env={"RFT_BROKER__SASL_PASSWORD": "hunter2", "RFT_TRAINER__STEPS": "9"},
    )  # fmt: skip
    assert answer.returncode == 0
    tree = tomllib.loads(answer.stdout)
    assert tree["trainer"]["steps"] == 7
    assert tree["broker"]["sasl_password"] == "**********"
    assert "hunter2" not in answer.stdout + answer.stderr
    assert not (config.parent / "runs").exists()


def check_refusal(answer: subprocess.CompletedProcess[str], code: int, *expected: str) -> None:
    """Check that there is one message with the ``expected`` texts, no traceback, and the right exit code."""
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert answer.stderr.count("rft: ") == 1
    for text in expected:
        assert text in answer.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[trainer]\nstepz = 5", ("unknown key 'trainer.stepz'", "Did you mean 'steps'")),
        ("[trainer]\nsteps = 0", ("trainer.steps", "found 0")),
        ("[trainer", ("not valid TOML",)),
    ],
)
def test_a_wrong_file_is_named_with_its_key(config, line, expected):
    config.write_text(line)
    check_refusal(rft("run", config), 2, str(config), *expected)


def test_a_missing_file_and_settings_before_it_are_explained(config):
    check_refusal(rft("run", config.with_name("no.toml")), 2, "no.toml: no such file")
    check_refusal(rft("trainer", "--trainer.steps", "3", config), 2, "CONFIG comes before settings")
    check_refusal(rft("run", config, "--trainer.steps"), 2, "--trainer.steps has no value")


def quickly(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    started = time.monotonic()
    answer = rft(*arguments)
    assert time.monotonic() - started < 60
    return answer


def test_a_missing_model_is_refused_before_anything_starts(config):
    answer = quickly("run", config, "--policy.model", config.parent / "nothing")
    check_refusal(answer, 2, "no model at", "Hugging Face layout")
    assert not list((config.parent / "runs").rglob("*.log"))


def test_a_port_in_use_is_named(config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check_refusal(quickly("run", config, "--broker.port", str(port)), 1, f"port {port} is in use", "broker.port")


def test_an_unreachable_broker_is_named_with_the_cause(config):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{closed.getsockname()[1]}"
    external = ("--broker.kind", "external", "--broker.bootstrap_servers", servers)
    check_refusal(quickly("run", config, *external), 1, servers, "refused")
    soon = (*external, "--broker.connect_timeout_s", "1")
    for command in ("topics", "report"):
        check_refusal(quickly(command, config, *soon), 1, servers, "refused")
    for role in ("conductor", "explorer", "processor", "trainer"):
        answer = quickly(role, config, *soon)
        assert answer.returncode == 1
        assert "Traceback" not in answer.stderr
        (error,) = [line for line in answer.stderr.splitlines() if " ERROR " in line]
        assert f"ERROR {role}: OutageError: broker {servers}: connection refused" in error


def test_doctor_says_what_to_do_and_fails_if_anything_does(config):
    answer = rft("doctor", config, "--policy.model", config.parent / "nothing")
    assert answer.returncode == 2
    assert "fail no model at" in answer.stdout
    assert "policy.model must be a folder" in answer.stdout
    assert "Traceback" not in answer.stderr


def test_topics_lists_every_topic_with_its_size(config, log_config):
    servers, namespace = log_config.broker.bootstrap_servers, log_config.log.namespace
    answer = rft(
        "topics", config, "--broker.kind", "external", "--broker.bootstrap_servers", servers,
        "--log.namespace", namespace,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    for entity in ("tasks", "experiences", "rewards", "ready", "weights", "members", "steps", "dlq"):
        assert f"{namespace}.{entity}.v1" in answer.stdout


def test_report_can_be_written_from_the_log_alone(config, log_config):
    servers, namespace = log_config.broker.bootstrap_servers, log_config.log.namespace
    answer = rft(
        "report", config, "--broker.kind", "external", "--broker.bootstrap_servers", servers,
        "--log.namespace", namespace,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert (config.parent / "runs" / "run" / "report.html").exists()

"""A role as a process stops when asked, and says in one line why it failed."""

from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.log_rate_limit import INTERVAL_S, RateLimitFilter
from infra.roles import ROLES

ROLE = """
import os, sys, threading, time
from infra.roles import run_role
from rft.config import Config
from rft.errors import BrokerError, ConfigError, PolicyError

def run(config, stop):
    print("running", flush=True)
    {body}

sys.exit(run_role("explorer", Config(), run))
"""


def start(body: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", ROLE.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_asks_the_role_to_stop_and_it_ends_cleanly(number, code):
    process = start("stop.wait(); print('tidied up')")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == "tidied up\n"
    assert err.splitlines()[-1].endswith(" INFO explorer: stopped")


def test_a_signal_in_the_middle_of_a_wait_for_it_does_not_block_the_role():
    """The wait for the stop event holds the event's lock while the signal's handler runs."""
    process = start(
        "\n    with stop._cond: os.kill(os.getpid(), 15); time.sleep(0.1)\n    stop.wait(); print('tidied up')"
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == "tidied up\n"


def test_a_second_ctrl_c_ends_a_role_that_does_not_stop():
    process = start("[time.sleep(0.05) for _ in range(400)]")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("PolicyError('no model\\nat all')", 1, "PolicyError: no model at all"),
        ("ConfigError('bad key')", 2, "ConfigError: bad key"),
        ("BrokerError('refused')", 1, "BrokerError: refused"),
    ],
)
def test_an_error_is_one_line_and_a_role_started_by_hand_leaves_no_file(tmp_path, error, code, line):
    process = start(f"raise {error}", tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith(f" ERROR explorer: {line}")
    assert list(tmp_path.iterdir()) == []


def test_a_bug_shows_its_traceback():
    process = start("1 / 0")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ZeroDivisionError" in err


def test_every_role_of_the_table_can_be_imported():
    import importlib

    for entry in ROLES.values():
        assert callable(importlib.import_module(entry.module).run)


def test_a_line_that_kafkas_clients_repeat_is_logged_once_in_a_while_and_no_other_is_withheld(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("infra.log_rate_limit.time", SimpleNamespace(monotonic=lambda: clock[0]))
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.addFilter(RateLimitFilter("kafka", "aiokafka"))
    noisy, ours = logging.getLogger("kafka.a_test"), logging.getLogger("rft.a_test")
    for logger in (noisy, ours):
        logger.addHandler(handler)
    try:
        for number in range(200):
            noisy.error("%s: connection lost", number, exc_info=ValueError("no one wants this traceback"))
            ours.error("ours")
        noisy.error("not authorized")
        clock[0] += INTERVAL_S
        noisy.error("%s: connection lost", 200)
    finally:
        for logger in (noisy, ours):
            logger.removeHandler(handler)
    assert written.getvalue().splitlines() == [
        "WARNING 0: connection lost",
        *["ERROR ours"] * 200,
        "WARNING not authorized",
        "WARNING 200: connection lost (and 199 more such lines)",
    ]

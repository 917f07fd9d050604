"""What all roles share as processes."""

from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
import time

import pytest

from infra.log_rate_limit import RateLimitFilter
from infra.roles import ROLES, lasting_error

ROLE = """
import sys, threading, time
from infra.roles import run_role
from rft.config import Config
from rft.errors import BrokerError, ConfigError, PolicyError

def run(config, stop):
    print("running", flush=True)
    {body}

sys.exit(run_role("explorer", Config(), run))
"""


def start(body: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", ROLE.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


def test_a_second_ctrl_c_ends_a_role_that_does_not_stop():
    process = start("[time.sleep(0.05) for _ in range(400)]")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


@pytest.mark.parametrize(
    ("error", "code", "lasting"),
    [
        ("PolicyError('no model\\nat all')", 1, "PolicyError: no model at all"),
        ("ConfigError('bad key')", 2, "ConfigError: bad key"),
        ("BrokerError('refused')", 1, None),
    ],
)
def test_an_error_is_one_line_and_the_launcher_knows_whether_it_lasts(error, code, lasting):
    process = start(f"raise {error}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    lines = err.splitlines()
    assert " ERROR explorer: " in lines[-1]
    assert lasting_error(lines) == lasting


def test_an_error_of_an_earlier_start_is_not_taken_for_the_last():
    lines = [
        "t INFO explorer-0: starts as process 1",
        "t ERROR explorer-0: PolicyError: no model",
        "t INFO explorer-0: starts as process 2",
        "t INFO explorer-0: at work",
    ]
    assert lasting_error(lines) is None
    assert lasting_error(lines[:2]) == "PolicyError: no model"


def test_a_bug_shows_its_traceback():
    process = start("1 / 0")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ZeroDivisionError" in err


def test_every_role_of_the_table_can_be_imported():
    import importlib

    for entry in ROLES.values():
        assert callable(importlib.import_module(entry.module).run)


def test_what_kafkas_clients_repeat_is_said_once_in_a_while_and_nothing_else_is_withheld(monkeypatch):
    monkeypatch.setattr("infra.log_rate_limit.INTERVAL_S", 0.3)
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.addFilter(RateLimitFilter("kafka", "aiokafka"))
    noisy, ours = logging.getLogger("kafka.a_test"), logging.getLogger("rft.a_test")
    for logger in (noisy, ours):
        logger.addHandler(handler)
    try:
        for number in range(200):
            noisy.error("%s: connection lost", number, exc_info=ValueError("nobody wants this traceback"))
            ours.error("ours")
        noisy.error("not authorised")
        time.sleep(0.4)
        noisy.error("%s: connection lost", 200)
    finally:
        for logger in (noisy, ours):
            logger.removeHandler(handler)
    assert said.getvalue().splitlines() == [
        "WARNING 0: connection lost",
        *["ERROR ours"] * 200,
        "WARNING not authorised",
        "WARNING 200: connection lost (and 199 more such lines)",
    ]

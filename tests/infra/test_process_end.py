"""A role's process ends within seconds after its work, although a library has left threads that do not end."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

ROLE = """
import sys, threading, time
import infra.roles
from rft.config import Config
from rft.errors import BrokerError

infra.roles.END_S = 1.0

def run(config, stop):
    threading.Thread(target=time.sleep, args=(3600,), name="of-a-library").start()
    {body}

sys.exit(infra.roles.run_role("explorer", Config(), run))
"""


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (
            "raise BrokerError('expelled')",
            1,
            "ERROR explorer: BrokerError: expelled",
        ),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("return None", 0, "INFO explorer: done"),
    ],
)
def test_a_thread_that_does_not_end_cannot_keep_a_role_s_process_alive(body: str, code: int, line: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ROLE.format(body=body)], capture_output=True, text=True, timeout=60, check=False
    )
    assert time.monotonic() - began < 40
    assert done.returncode == code, done.stderr
    assert line in done.stderr
    assert "thread of-a-library has not ended; the process ends without it" in done.stderr


def test_a_process_without_such_threads_ends_at_once_and_says_nothing() -> None:
    body = "time.sleep(0)"
    role = ROLE.format(body=body).replace("args=(3600,)", "args=(0.1,)").replace("END_S = 1.0", "END_S = 30.0")
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", role], capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - began < 25
    assert (done.returncode, "has not ended" in done.stderr) == (0, False)

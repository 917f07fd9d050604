"""``math_verify``: rewards a response that is mathematically equal to the answer.

The library limits its time by SIGALRM, which works only in a main thread and does not interrupt C code (9^9^9^9 is one
big-integer multiplication). So it runs in a separate process that may be killed, :mod:`rft.rewards.math_worker`.
"""

from __future__ import annotations

import atexit
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

from rft.errors import RewardError
from rft.rewards.matching import reference

log = logging.getLogger(__name__)


def math_verify(response: str, answer: str | None, *, timeout_s: float = 5.0) -> float:
    """Return 1 if math-verify finds the last expression of the response equal to the answer, else 0.

    The answer may be LaTeX or plain. A response that takes longer than ``timeout_s`` seconds of CPU time counts as
    wrong. Any thread may call this. Raises RewardError if the answer cannot be parsed.
    """
    if timeout_s <= 0:
        raise ValueError("timeout_s must be above 0")
    verdict = _worker.ask({"response": response, "answer": reference(answer, "math_verify"), "timeout_s": timeout_s})
    if verdict is None:
        log.warning("math_verify: a response took more than %g s of CPU time and counts as wrong", timeout_s)
        return 0.0
    if "error" in verdict:
        raise RewardError(f"math_verify: {verdict['error']}")
    return float(verdict["reward"] is True)


class _Worker:
    """The worker process. It starts with the first request, restarts if it was killed, and ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, object]) -> dict[str, object] | None:
        """Return the worker's reply, None if the request killed it."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()
            process = self._process or self._start()
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BaseException:
                self._end()  # the reply to an interrupted request must not be taken for that to the next one
                raise
            if line.endswith("\n"):
                reply: dict[str, object] = json.loads(line)
                return reply
            self._end()
            return None

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            # By its path and with -P, so that no file of the working directory can replace math_verify.
            [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        assert process.stdout
        self._process = process
        if process.stdout.readline() != "ready\n":
            self._end()
            raise RewardError("math_verify: its process did not start; see its error above. Is math-verify installed?")
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        with self._lock:
            self._end()


_worker = _Worker()
atexit.register(_worker.close)

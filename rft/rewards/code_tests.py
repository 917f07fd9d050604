"""``code_tests``: runs the code of a response against the task's tests, in the sandbox.

A test is ``{"input": ..., "output": ...}``, texts for standard input and the expected standard output, or Python
statements such as ``assert double(2) == 4``. Expected outputs never enter the sandbox. Statements run in the response's
own interpreter, so code that is written to deceive can pass them; see docs/rewarders.md.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from rft.config import RewarderConfig
from rft.config.section import Section
from rft.errors import RewardError
from rft.retry import Deadline
from rft.rewards.functions import Sample
from rft.rewards.judgement import Judgement, Usage
from rft.rewards.options import read_options
from rft.rewards.sandbox import Limits, Outcome, check_sandbox, run_code

MAX_TESTS = 200
SHOWN_CHARS = 500
_FENCE = re.compile(r"^```[ \t]*([\w+-]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PYTHON = ("python", "py", "python3")


class CodeTestsOptions(Section):
    tests: str = "tests"
    """Where the tests are: a key of the task's metadata, or ``answer``. Texts are read as JSON, or as one statement."""
    score: Literal["all", "share"] = "all"
    """``all``: 1 if every test passes, else 0. ``share``: the share that passes."""
    isolation: Literal["namespaces", "limits"] = "namespaces"
    """``limits`` runs code that is not cut off from this user's files; see docs/rewarders.md."""
    python: str | None = None
    """The interpreter, by default that of the rewarder. As root with ``limits``, it must be readable for every user."""
    read_only: list[str] = []
    """Folders of packages that the code may import."""
    wall_s: float = Field(default=10.0, gt=0)
    """How long one test may take."""
    cpu_s: int = Field(default=10, ge=1)
    memory_mb: int = Field(default=512, ge=64)
    processes: int = Field(default=16, ge=1)
    files_mb: int = Field(default=32, ge=1)
    output_kb: int = Field(default=256, ge=1)

    @property
    def limits(self) -> Limits:
        """What one test may use."""
        return Limits(self.wall_s, self.cpu_s, self.memory_mb, self.processes, self.files_mb, self.output_kb)


class CodeTests:
    """Rewards a response by the tests that its code passes."""

    overhead_s = 60.0
    """For the check of the sandbox before the first run, on a busy machine."""

    def __init__(self, name: str, config: RewarderConfig) -> None:
        """Read the options. Raises ConfigError for wrong ones."""
        self._options = read_options(name, config, CodeTestsOptions)
        self._budget_s = config.deadline_s / 2
        """For all tests of a response. Code that hangs in each of them gets no reward, and is no failure of ours."""
        self._checked = False
        self.usage = Usage()

    async def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Run one response. Raises ConfigError with the first one if code cannot be isolated on this machine."""
        (sample,) = samples
        tests = find_tests(sample, self._options.tests)
        await self.check()
        code = find_code(sample.response)
        if code is None:
            return [Judgement({"": 0.0}, {"reason": "the response holds no code"})]
        passed = 0
        reason = ""
        deadline = Deadline(self._budget_s)
        for number, test in enumerate(tests):
            left_s = deadline.remaining()
            failure = await self._failure(code, test, left_s) if left_s else "there was no time left for it"
            passed += failure is None
            if failure is not None and not reason:
                reason = f"test {number + 1}: {failure}"
                if self._options.score == "all":
                    break
        reward = passed / len(tests) if self._options.score == "share" else float(passed == len(tests))
        details = {"passed": passed, "tests": len(tests), **({"reason": reason} if reason else {})}
        return [Judgement({"": reward}, details)]

    @property
    def _how(self) -> dict[str, Any]:
        options = self._options
        return {
            "isolated": options.isolation == "namespaces",
            "read_only": options.read_only,
            "python": options.python,
        }

    async def check(self) -> None:
        """Raise ConfigError if code cannot be run as configured on this machine."""
        if not self._checked:
            await check_sandbox(**self._how)
            self._checked = True

    async def close(self) -> None:
        """Do nothing: each run ends with its sandbox."""

    async def _failure(self, code: str, test: dict[str, str] | str, left_s: float) -> str | None:
        """Return why a test fails within ``left_s``; None if it passes."""
        limits = self._options.limits
        limits = replace(limits, wall_s=min(limits.wall_s, left_s))
        if isinstance(test, dict):
            outcome = await run_code(code, test["input"], limits, **self._how)
            passed = outcome.ok and _lines(outcome.stdout) == _lines(test["output"])
            return None if passed else _describe(outcome, "its output is another one")
        # Code that ends the program before its tests prints no mark.
        mark = secrets.token_hex(16)
        program = f"{code}\n\n{test}\n\nprint({mark!r})\n"
        outcome = await run_code(program, "", limits, **self._how)
        passed = outcome.ok and outcome.stdout.rstrip("\n").rpartition("\n")[2] == mark
        return None if passed else _describe(outcome, "it ended before the test")


def find_code(response: str) -> str | None:
    """Return the last block of Python code of a response, or its last block without a language; None if it has none."""
    blocks = _FENCE.findall(response)
    python = [code for language, code in blocks if language.lower() in _PYTHON]
    plain = [code for language, code in blocks if not language]
    return next(iter([*python[-1:], *plain[-1:]]), None)


def find_tests(sample: Sample, place: str) -> list[dict[str, str] | str]:
    """Return a task's tests. Raises RewardError if there are none, or they are none."""
    found: Any = sample.answer if place == "answer" else sample.metadata.get(place)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            found = [found]
    where = "answer" if place == "answer" else f"metadata.{place}"
    if not isinstance(found, list) or not 0 < len(found) <= MAX_TESTS:
        raise RewardError(f"the task's {where} is no list of 1 to {MAX_TESTS} tests; see options.tests")
    for test in found:
        pair = isinstance(test, dict) and all(isinstance(test.get(key), str) for key in ("input", "output"))
        if not (isinstance(test, str) or pair):
            raise RewardError(f"the task's {where} holds {test!r:.100}: a test is a statement, or input and output")
    return found


def _lines(text: str) -> list[str]:
    """Return the lines without white space at their ends, and without empty ones at the end."""
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip().split("\n")


def _describe(outcome: Outcome, otherwise: str) -> str:
    if outcome.cause is not None:
        return f"ended for too much {outcome.cause}"
    if not outcome.ok:
        last = outcome.stderr.strip().rpartition("\n")[2]
        return f"failed: {last[:SHOWN_CHARS]}" if last else f"ended with {outcome.exit_code}"
    return f"{otherwise}: {outcome.stdout[-SHOWN_CHARS:]!r}"

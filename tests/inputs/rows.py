"""Defines a row of the table of bad inputs, and the good input that each row spoils."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TASKS = [{"question": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]
GOOD: dict[str, Any] = {
    "policy": {"model": "model"},
    "tasks": {"source": "jsonl:tasks.jsonl"},
    "rollout": {"max_tokens": 8},
    "eval": {"tasks": 4},
    "trainer": {"steps": 10},
}
"""A configuration in which nothing is wrong."""


@dataclass(frozen=True)
class Row:
    """One bad input, and what its user is told."""

    name: str
    settings: Mapping[str, Any]
    """Merged into ``GOOD``."""
    message: str
    """Regular expression that is in one finding."""
    level: Literal["fail", "warn"] = "fail"
    files: Mapping[str, str | bytes | None] = field(default_factory=dict)
    """Written beside the configuration, in place of what is there; None: removed."""
    text: str | None = None
    """The configuration's text, in place of ``settings``."""
    arguments: tuple[str, ...] = ()
    """After CONFIG."""
    environ: Mapping[str, str] = field(default_factory=dict)
    elsewhere: bool = False
    """The working directory is not the folder of the configuration."""
    command: str = "run"
    """The command that says it, for rows that are also given to the real one."""
    real: bool = False
    """Whether the row is also given to the real command."""


def jsonl(*rows: Any) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def with_answers(*answers: Any) -> dict[str, str]:
    """Return the tasks' file with these answers, in turn."""
    return {"tasks.jsonl": jsonl(*({**task, "answer": answers[i % len(answers)]} for i, task in enumerate(TASKS)))}


def with_questions(*questions: str) -> dict[str, str]:
    """Return the tasks' file with these questions, each with a number."""
    many = [{"question": questions[i % len(questions)] + str(i), "answer": str(i)} for i in range(16)]
    return {"tasks.jsonl": jsonl(*many)}


def reward(code: str, name: str = "mine.py") -> dict[str, str]:
    """Return a file with a user's code."""
    return {name: code}


def by_function(function: str, **options: Any) -> dict[str, Any]:
    """Return the settings of one reward function."""
    return {"processor": {"rewards": [{"function": function, **options}]}}

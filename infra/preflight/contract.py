"""Defines a check: a function of the configuration that yields findings.

To add one, write it in the file of its subject and list it in :mod:`infra.preflight.checks`. A check

- yields ``fail`` only for what cannot work, ``warn`` for what is seldom meant, and one ``ok`` if all is well;
- says what is wrong in ``what`` and what to do, in the imperative, in ``advice``;
- reads what it shares with others, such as tasks and the tokenizer, from :class:`~infra.preflight.facts.Facts`;
- imports neither torch nor transformers. A user's module that imports them costs what it costs.

Checks run in a process of their own (:mod:`infra.preflight.process`), so a user's module that hangs, ends its process
or prints does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from infra.preflight.facts import Facts

Level = Literal["ok", "warn", "fail"]
Role = Literal["conductor", "explorer", "gateway", "processor", "rewarder", "trainer", "importer", "tracker", "eval"]
"""Who starts something: a role of a run, or ``rft eval``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    level: Level
    what: str
    advice: str = ""
    """What to do; empty if nothing is to be done, or if ``what`` says it."""
    exit_code: int = 1
    """Of `rft doctor` if it is a failure: 2 if the configuration is wrong, 1 if it is the machine or the broker."""

    @property
    def text(self) -> str:
        """Both as one line."""
        return f"{self.what}: {self.advice}" if self.advice else self.what


@dataclass(frozen=True, slots=True)
class Check:
    """One subject of the preflight."""

    subject: str
    """What is looked at, as in "the check of … has not ended"."""
    find: Callable[[Facts], Iterable[Finding]]
    """Yields findings. It may raise an RftError, which becomes a ``fail``."""
    roles: frozenset[Role]
    """The check is made if one of these is started."""

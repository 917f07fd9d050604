"""Defines what a task source gives: items with a question, an answer, and the prompt made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rft.config import MAIN_SET
from rft.errors import ConfigError
from rft.texts import answer_text, utf8_fault


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One task. Two items with the same ``prompt`` are the same task to a model."""

    question: str
    answer: str | None
    metadata: Mapping[str, Any]
    """Plain JSON values, handed to workflow and reward functions."""
    prompt: str
    """Question and metadata in ``tasks.prompt_template``."""


class TaskSource(Protocol):
    """Tasks by number. ``source[n]`` is always the same item for the same configuration."""

    def __len__(self) -> int:
        """Return the number of items of one epoch; an endless source returns a very large number."""
        ...

    def __getitem__(self, index: int) -> TaskItem:
        """Return item ``index`` ≥ 0. Beyond its length a training source continues with the next epoch."""
        ...


@dataclass(frozen=True, slots=True)
class TaskSplits:
    """Training tasks, and held-out sets that share no prompt with them."""

    train: TaskSource
    sets: Mapping[str, TaskSource]
    """By name of the held-out set (``Config.eval_sets``): exactly its ``tasks`` items, and no prompt twice."""

    @property
    def held_out(self) -> TaskSource:
        """The tasks of ``[eval]`` itself; empty if that evaluation is turned off."""
        return self.sets.get(MAIN_SET, ())


def make_item(raw: Mapping[str, Any], template: str, origin: str) -> TaskItem:
    """Return the item for a source's mapping with ``question`` and perhaps ``answer``; its other keys are metadata.

    A key ``metadata`` that holds a mapping is merged into the metadata. Raises ConfigError that begins with ``origin``.
    """
    question, answer = raw.get("question"), raw.get("answer")
    if not isinstance(question, str) or not question:
        raise ConfigError(f"{origin}: 'question' must be a text, found {question!r}")
    try:
        answer = answer_text(answer)
    except ValueError as error:
        raise ConfigError(f"{origin}: 'answer' {error}") from None
    rest = {key: value for key, value in raw.items() if key not in ("question", "answer", "metadata")}
    nested = raw.get("metadata")
    if isinstance(nested, Mapping):
        rest = {**nested, **rest}
    elif nested is not None:
        rest["metadata"] = nested
    try:
        metadata = json.loads(json.dumps(rest, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: the metadata cannot be written as JSON: {error}") from error
    prompt = _render(template, question, metadata, origin)
    for name, text in (("the prompt", prompt), ("'answer'", answer or "")):
        if fault := utf8_fault(text):
            raise ConfigError(f"{origin}: {name} {fault}")
    return TaskItem(question, answer, metadata, prompt)


def prompt_in(template: str, item: TaskItem) -> str | None:
    """Return the prompt that ``template`` makes of ``item``; None if it does not fit this kind of item."""
    try:
        return _render(template, item.question, item.metadata, "")
    except ConfigError:
        return None


def _render(template: str, question: str, metadata: Mapping[str, Any], origin: str) -> str:
    fields = {**metadata, "question": question}
    try:
        prompt = template.format(**fields)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"tasks.prompt_template = {template!r} does not fit {origin}: {type(error).__name__}: {error}; "
            f"its fields are {', '.join(sorted(fields))}"
        ) from error
    if not prompt:
        raise ConfigError(f"tasks.prompt_template = {template!r} makes an empty prompt of {origin}")
    return prompt

"""Turns a row into events: a demonstration, a pair of preferences, or a task. Pure.

Ids are made from the content, so the same row has the same id when it is imported again, wherever it is in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from rft.config import Config, ImportConfig
from rft.data.chat import WRITER, Message, Tokens, Written, check_messages
from rft.data.reading import Row
from rft.errors import RowError
from rft.texts import answer_text, utf8_fault
from schemas.events import NOT_WRITTEN, Experience, Task

CHOSEN, REJECTED = 1.0, 0.0
"""Rewards of the two answers of a preference."""


class RowMaker:
    """Makes the events of one import."""

    def __init__(self, config: Config, source: ImportConfig, tokens: Tokens) -> None:
        self._config = config
        self._source = source
        self._columns = source.columns
        self._tokens = tokens

    def events(self, row: Row, now_ms: int) -> list[Experience] | list[Task]:
        """Return one demonstration, the two answers of a preference, or one task. Raises RowError."""
        match self._source.kind:
            case "demonstrations":
                return [self._demonstration(row, now_ms)]
            case "preferences":
                return self._preference(row, now_ms)
        return [self._task(row, now_ms)]

    def question(self, row: Row) -> dict[str, Any]:
        """Return a task as a task source gives it: the rendered prompt as ``question``, ``answer`` and metadata.

        Raises RowError.
        """
        return {"question": self._prompt_text(row), "answer": self._answer(row), **self._metadata(row)}

    def _demonstration(self, row: Row, now_ms: int) -> Experience:
        columns = self._columns
        if columns.messages is not None:
            written = self._tokens.conversation(check_messages(_value(row, columns.messages), columns.messages))
        else:
            written = self._written(row, columns.response)
        return self._experiences(row, "demonstration", [(written, self._reward(row))], now_ms)[0]

    def _preference(self, row: Row, now_ms: int) -> list[Experience]:
        chosen, rejected = (self._written(row, name) for name in (self._columns.chosen, self._columns.rejected))
        if np.array_equal(chosen.tokens, rejected.tokens):
            raise RowError("chosen and rejected are the same")
        if chosen.prompt != rejected.prompt:
            raise RowError("chosen and rejected answer different prompts")
        return self._experiences(row, "preference", [(chosen, CHOSEN), (rejected, REJECTED)], now_ms)

    def _written(self, row: Row, column: str) -> Written:
        """Return the prompt, and the expert's answer in ``column``."""
        answer = _value(row, column)
        if isinstance(answer, list):
            messages = check_messages(answer, column)
            if messages[0]["role"] == WRITER:
                prompt = self._prompt_messages(row)
                return self._tokens.conversation([*prompt, *messages], len(prompt))
            # The messages include the prompt, as in TRL: the last message is the answer.
            return self._tokens.conversation(messages, len(messages) - 1)
        if not isinstance(answer, str) or not answer:
            raise RowError(f"column {column!r} must be a text, found {answer!r:.80}")
        if self._source.chat or isinstance(row.get(self._columns.prompt), list):
            prompt = self._prompt_messages(row)
            return self._tokens.conversation([*prompt, {"role": WRITER, "content": answer}], len(prompt))
        return self._tokens.text(self._prompt_plain(row), answer)

    def _prompt_text(self, row: Row) -> str:
        """Return the prompt as a policy gets it."""
        if self._columns.messages is not None:
            return self._tokens.render(check_messages(_value(row, self._columns.messages), self._columns.messages))
        if self._source.chat or isinstance(row.get(self._columns.prompt), list):
            return self._tokens.render(self._prompt_messages(row))
        return self._prompt_plain(row)

    def _prompt_messages(self, row: Row) -> list[Message]:
        if self._source.prompt_template is None and isinstance(row.get(self._columns.prompt), list):
            return check_messages(row[self._columns.prompt], self._columns.prompt)
        return [{"role": "user", "content": self._prompt_plain(row)}]

    def _prompt_plain(self, row: Row) -> str:
        template = self._source.prompt_template
        if template is None:
            prompt = _value(row, self._columns.prompt)
        else:
            try:
                prompt = template.format(**row)
            except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
                raise RowError(f"prompt_template does not fit: {type(error).__name__}: {error}") from error
        if isinstance(prompt, str) and (fault := utf8_fault(prompt)):
            raise RowError(f"the prompt {fault}")
        if not isinstance(prompt, str) or not prompt:
            raise RowError(f"the prompt (column {self._columns.prompt!r}) must be a text, found {prompt!r:.80}")
        return prompt

    def _answer(self, row: Row) -> str | None:
        if self._columns.answer is None:
            return None
        try:
            return answer_text(_value(row, self._columns.answer))
        except ValueError as error:
            raise RowError(f"column {self._columns.answer!r} {error}") from None

    def _reward(self, row: Row) -> float | None:
        if self._columns.reward is None:
            return None
        reward = _value(row, self._columns.reward)
        if isinstance(reward, bool) or not isinstance(reward, (int, float)) or not isfinite(reward):
            raise RowError(f"column {self._columns.reward!r} must be a finite number, found {reward!r:.80}")
        return float(reward)

    def _metadata(self, row: Row) -> dict[str, Any]:
        values = {name: _value(row, name) for name in self._columns.metadata}
        try:
            plain: dict[str, Any] = json.loads(json.dumps(values, default=str, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise RowError(f"the metadata cannot be written as JSON: {error}") from error
        return plain

    def _experiences(
        self, row: Row, kind: str, samples: list[tuple[Written, float | None]], now_ms: int
    ) -> list[Experience]:
        answer, metadata = self._answer(row), json.dumps(self._metadata(row))
        for written, _ in samples:
            self._check(written)
        content = [(w.prompt, w.response, w.tokens.tolist(), w.action_mask.tolist(), reward) for w, reward in samples]
        group_id = self._id([kind, content, answer, metadata])
        return [
            Experience(
                experience_id=f"{group_id}/{sample}",
                group_id=group_id,
                number=-1,
                sample=sample,
                split="train",
                group_size=len(samples),
                prompt=written.prompt,
                response=written.response,
                answer=answer,
                created_at=now_ms,
                source=f"import:{self._source.name}",
                model=self._source.name,
                tokens=written.tokens,
                action_mask=written.action_mask,
                logprobs=np.zeros(written.tokens.size, np.float32),
                versions=np.full(written.tokens.size, NOT_WRITTEN, np.int32),
                kind=kind,
                reward=reward,
                metadata=metadata,
            )
            for sample, (written, reward) in enumerate(samples)
        ]

    def _task(self, row: Row, now_ms: int) -> Task:
        prompt, answer, metadata = self._prompt_text(row), self._answer(row), json.dumps(self._metadata(row))
        self._tokens.check_prompt(prompt)
        rollout = self._config.rollout
        group_id = self._id(["task", prompt, answer, metadata])
        return Task(
            group_id=group_id,
            number=-1,
            split="train",
            source=f"import:{self._source.name}",
            prompt=prompt,
            answer=answer,
            samples=rollout.samples,
            max_tokens=rollout.max_tokens,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            seed=int.from_bytes(hashlib.blake2b(group_id.encode(), digest_size=4).digest(), "big") >> 1,
            min_version=0,
            issued_at=now_ms,
            metadata=metadata,
        )

    def _check(self, written: Written) -> None:
        if not written.action_mask[1:].any():
            raise RowError("the answer has no token")
        limit = self._source.max_tokens
        if limit is not None and written.tokens.size > limit:
            raise RowError(f"has {written.tokens.size} tokens, more than max_tokens = {limit}")
        context = self._tokens.context
        if context is not None and written.tokens.size > context:
            raise RowError(f"has {written.tokens.size} tokens, more than the model's context of {context}")

    def _id(self, content: list[Any]) -> str:
        text = json.dumps(content, ensure_ascii=False)
        return f"{self._source.name}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def _value(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise RowError(f"has no column {column!r}; it has {', '.join(map(str, row)) or 'none'}")
    value = row[column]
    if isinstance(value, str) and (fault := utf8_fault(value)):
        raise RowError(f"column {column!r} {fault}")
    return value

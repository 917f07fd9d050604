"""Agents come by themselves, with the SDKs that they have, and a run trains on what they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import numpy as np
import openai
import pytest
from pipeline import Pipeline, settings

from consumers.audit import audit
from rft.log.opening import open_log
from schemas.codec import decode
from schemas.events import Experience, Reward, TrainingStep
from tests.producers.chat_model import check_logprobs, make_chat_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

STEPS, GROUPS = 3, 2
TURN_TOKENS = 8
TOKENS = {"return_token_ids": True}


class Agents:
    """What programs outside of the run do: they know its address and its token."""

    def __init__(self, run: Pipeline) -> None:
        folder = run.config.run.path / "gateway"
        run.wait_until(lambda: (folder / "url").exists() and (folder / "token").exists(), 120, "gateway")
        self.url = (folder / "url").read_text().strip()
        self.token = (folder / "token").read_text().strip()
        self.said: dict[str, list[tuple[list[int], list[int]]]] = {}
        """What the policy read and wrote for each session, turn by turn, as the answers say."""

    def post(self, path: str, body: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.token}"}
        answer = httpx.post(f"{self.url}/rft/{path}", json=body, headers=headers, timeout=120)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def group(self, name: str) -> Iterator[tuple[str, str]]:
        for one in self.post("sessions", {"group": name, "samples": 2})["sessions"]:
            yield one["session"], one["api_key"]

    def chat(self, session: str, key: str) -> Iterator[None]:
        """Ask twice by OpenAI's SDK; each ``next`` is a turn."""
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, timeout=120, max_retries=30) as client:
            messages: list[Any] = [{"role": "user", "content": "Hello."}]
            for _ in range(2):
                answer = client.chat.completions.create(
                    model="policy", messages=messages, max_tokens=TURN_TOKENS, extra_body=TOKENS
                )
                self.note(session, answer.model_extra, answer.choices[0].model_extra)
                messages += [answer.choices[0].message, {"role": "user", "content": "Go on."}]
                yield

    def message(self, session: str, key: str) -> Iterator[None]:
        """Ask twice by Anthropic's SDK, with the session in the path."""
        url = f"{self.url}/s/{session}"
        with anthropic.Anthropic(base_url=url, api_key=key, timeout=120, max_retries=30) as client:
            messages: list[Any] = [{"role": "user", "content": "Hello."}]
            for _ in range(2):
                answer = client.messages.create(
                    model="policy", messages=messages, max_tokens=TURN_TOKENS, extra_body=TOKENS
                )
                self.note(session, answer.model_extra, answer.model_extra)
                messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "Go on."}]
                yield

    def note(self, session: str, read: Any, written: Any) -> None:
        self.said.setdefault(session, []).append((read["prompt_token_ids"], written["token_ids"]))


def test_a_run_trains_on_agents_that_come_by_themselves_through_kills(pipeline, tmp_path) -> None:
    model = make_chat_model(tmp_path / "model")
    run = pipeline(
        settings(
            tmp_path,
            model,
            run={"mode": "train"},
            gateway={"serve": True, "explorer_wait_s": 120.0},
            rollout={"max_tokens": 64},
            launcher={"explorers": 2},
            trainer={"steps": STEPS, "groups_per_step": GROUPS, "max_staleness": 2},
            processor={"group_deadline_s": 120},
            eval={"tasks": 0},
        )
    )
    agents = Agents(run)
    lone = agents.chat("lone", f"{agents.token}:lone")
    next(lone)
    for number in range(STEPS * GROUPS):
        (first, first_key), (second, second_key) = agents.group(f"g{number}")
        chat, message = agents.chat(first, first_key), agents.message(second, second_key)
        next(chat), next(message)
        if number == 0:
            run.kill("explorer")  # the sessions are spread over both, so one of them moves
        if number == 1:
            run.kill("gateway")  # what was said is on the log
        next(chat), next(message)
        agents.post(f"sessions/{first}/end", {"reward": 1})
        agents.post(f"sessions/{second}/end", {"reward": 0})
        if number == 0:
            next(lone)
            agents.post("sessions/lone/end", {})
            agents.post("sessions/lone/reward", {"reward": 0.5, "revision": 1})
    assert run.wait(120) == 0, run.tail()

    with open_log(run.config) as view:
        audited = audit(run.config, view)
        experiences = [decode(event.value or b"", Experience) for event in view.read("experiences")]
        rewards = [decode(event.value or b"", Reward) for event in view.read("rewards")]
        steps = [decode(event.value or b"", TrainingStep) for event in view.read("steps")]
    assert audited.ok, audited.problems
    rows = {one.experience_id: one for one in experiences}
    trained = {ref.experience_id for step in steps for ref in step.trained}
    assert trained == {f"group-g{number}/{sample}" for number in range(STEPS * GROUPS) for sample in range(2)}
    assert rows.keys() == trained | {"session-lone/0"}
    assert [(one.experience_id, one.source, one.value) for one in rewards] == [("session-lone/0", "session", 0.5)]
    assert {one.reward for one in rows.values()} == {0.0, 1.0, None}
    for session, turns in agents.said.items():
        group, _, sample = session.partition("~")
        check_tokens(rows[f"group-{group}/{sample}" if sample else f"session-{session}/0"], turns)
    check_logprobs(model, [row for row in rows.values() if row.versions.max() == 0])
    assert max(int(row.versions.max()) for row in rows.values()) > 0, "weights were updated underneath"
    assert json.loads((run.config.run.path / "report.json").read_text())["finished"]
    logs = "".join(path.read_text() for path in (run.config.run.path / "logs").glob("*.log"))
    assert "its request is repeated" in logs
    assert agents.token not in logs


def check_tokens(row: Experience, turns: list[tuple[list[int], list[int]]]) -> None:
    """Assert that a row is what the policy read and wrote, and that its mask is on what it wrote."""
    read, written = turns[-1]
    assert row.tokens.tolist() == read + written
    edges = np.flatnonzero(np.diff(row.action_mask.astype(int), prepend=0, append=0))
    runs = [row.tokens[begin:end].tolist() for begin, end in edges.reshape(-1, 2)]
    assert runs == [written for _, written in turns]

"""Agents that come by themselves: real SDKs open sessions, end them, and reward them before and after."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from serving_explorers import SECRET, ServedGateway, explorers, served_config

from producers.gateway.contract import GroupRequest
from producers.gateway.session_groups import place_of, session_task
from rft.config import Config
from rft.errors import RequestError
from rft.policy.transformers.policy import TransformersPolicy
from rft.stream.validate import validate, validate_reward
from schemas.events import Experience
from tests.producers.recording_policy import RecordingPolicy

TOKENS = {"return_token_ids": True}


@pytest.fixture(scope="module")
def config(chat_policy: TransformersPolicy) -> Config:
    return served_config(Path(chat_policy.chat._tokenizer.name_or_path))


@pytest.fixture
def recording(chat_policy: TransformersPolicy) -> RecordingPolicy:
    return RecordingPolicy(chat_policy, seed=-1)


@pytest.fixture
def gateway(config: Config, recording: RecordingPolicy) -> Iterator[ServedGateway]:
    with explorers(config, recording) as servers, ServedGateway(config, servers) as served:
        yield served


def post(gateway: ServedGateway, path: str, body: Any, key: str = SECRET) -> httpx.Response:
    return httpx.post(gateway.url + path, json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def chat(gateway: ServedGateway, key: str, turns: int = 2, **options: Any) -> list[Any]:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "Say something."}]
    answers = []
    for _ in range(turns):
        answer = client.chat.completions.create(
            model="policy", messages=messages, max_tokens=10, extra_body=TOKENS, **options
        )
        answers.append(answer)
        messages += [answer.choices[0].message, {"role": "user", "content": "Go on."}]
    client.close()
    return answers


def valid(gateway: ServedGateway) -> list[Experience]:
    """Return the experiences so far. Processors accept all of them."""
    found = gateway.published.of("experiences")
    for one in found:
        validate(one, one.group_id.encode())
    for reward in gateway.published.of("rewards"):
        validate_reward(reward, reward.group_id.encode())
    return found


def test_a_session_is_opened_by_its_first_request_and_ends_by_a_call(
    gateway: ServedGateway, recording: RecordingPolicy
) -> None:
    answers = chat(gateway, f"{SECRET}:chat-1")
    assert answers[0].rft["session"] == "chat-1"
    ended = post(gateway, "/rft/sessions/chat-1/end", {"reward": 0.5})
    assert ended.status_code == 200
    (row,) = valid(gateway)
    assert ended.json() == {
        "session": "chat-1",
        "state": "ended",
        "turns": 2,
        "group_id": "session-chat-1",
        "experiences": ["session-chat-1/0"],
    }
    assert (row.experience_id, row.number, row.group_size, row.reward) == ("session-chat-1/0", -1, 1, 0.5)
    assert (row.split, row.kind, row.source) == ("train", "rollout", "gateway-test")
    read, written = answers[-1].model_extra["prompt_token_ids"], answers[-1].choices[0].model_extra["token_ids"]
    assert row.tokens.tolist() == read + written
    prompt, done = recording.calls[-1]
    assert row.tokens.tolist() == prompt + done.tokens.tolist()
    assert post(gateway, "/rft/sessions/chat-1/end", {}).json() == ended.json()
    assert len(valid(gateway)) == 1
    with pytest.raises(openai.APIStatusError) as gone:
        chat(gateway, f"{SECRET}:chat-1")
    assert gone.value.status_code == 410


def test_the_group_of_a_session_has_samples_of_both_sdks(gateway: ServedGateway, recording: RecordingPolicy) -> None:
    opened = post(gateway, "/rft/sessions", {"group": "q42", "samples": 2, "answer": "42", "metadata": {"level": 3}})
    assert opened.status_code == 200
    assert [one["session"] for one in opened.json()["sessions"]] == ["q42~0", "q42~1"]
    keys = [one["api_key"] for one in opened.json()["sessions"]]
    chat(gateway, keys[0])
    client = anthropic.Anthropic(base_url=gateway.url, api_key=keys[1], max_retries=0)
    client.messages.create(model="policy", max_tokens=10, messages=[{"role": "user", "content": "Say something."}])
    client.close()
    for name, key in zip(("q42~0", "q42~1"), keys, strict=True):
        assert post(gateway, f"/rft/sessions/{name}/end", {}, key).status_code == 200
    rows = valid(gateway)
    assert [(row.experience_id, row.group_size, row.answer) for row in rows] == [
        ("group-q42/0", 2, "42"),
        ("group-q42/1", 2, "42"),
    ]
    assert {json.loads(row.metadata)["level"] for row in rows} == {3}
    assert recording.calls[0][1].tokens.tolist() != recording.calls[-1][1].tokens.tolist()  # other random numbers


def test_a_group_is_opened_once(gateway: ServedGateway) -> None:
    first = post(gateway, "/rft/sessions", {"group": "g", "samples": 3}).json()
    assert post(gateway, "/rft/sessions", {"group": "g", "samples": 3}).json() == first
    other = post(gateway, "/rft/sessions", {"group": "g", "samples": 2})
    assert other.status_code == 400
    assert "other samples" in other.json()["error"]["message"]
    assert gateway.sessions.open_sessions == 3


def test_a_sample_without_a_turn_does_not_hold_up_its_group(gateway: ServedGateway) -> None:
    post(gateway, "/rft/sessions", {"group": "g", "samples": 2})
    assert post(gateway, "/rft/sessions/g~1/end", {}).status_code == 200
    (failed,) = valid(gateway)
    assert (failed.experience_id, failed.finish_reason) == ("group-g/1", "error")


def test_rewards_before_the_end_are_in_the_experience_and_later_ones_on_the_topic(gateway: ServedGateway) -> None:
    chat(gateway, f"{SECRET}:s")
    rewards = "/rft/sessions/s/reward"
    assert post(gateway, rewards, {"reward": 1, "turn": 1}).status_code == 200
    assert post(gateway, rewards, {"rewards": {"tests": 0.25}}).status_code == 200
    post(gateway, "/rft/sessions/s/end", {})
    (row,) = valid(gateway)
    assert dict(row.rewards) == {"tests": 0.25}
    assert row.turn_rewards[1] == 1
    assert post(gateway, rewards, {"reward": 0.75, "revision": 3}).status_code == 200
    assert post(gateway, rewards, {"rewards": {"tests": 0.5}, "revision": 1}).status_code == 200
    assert post(gateway, rewards, {"reward": 0.1, "turn": 0}).status_code == 200
    assert post(gateway, rewards, {"reward": 0.1, "turn": 2}).status_code == 400
    valid(gateway)
    assert [(r.experience_id, r.source, r.value, r.revision) for r in gateway.published.of("rewards")] == [
        ("session-s/0", "session", 0.75, 3),
        ("session-s/0", "tests", 0.5, 1),
        ("session-s/0", "session.turn-0", 0.1, 0),
    ]


def test_a_reward_that_processors_wait_for_has_its_source_before_the_end_as_after_it(
    chat_policy: TransformersPolicy, config: Config
) -> None:
    external = {
        "processor": {"external": {"required": ["people"]}},
        "gateway": {"serve": True, "reward_source": "people"},
    }
    waiting = Config.model_validate(config.model_dump(exclude_unset=True) | external)
    with explorers(waiting, chat_policy) as servers, ServedGateway(waiting, servers) as gateway:
        chat(gateway, f"{SECRET}:s", turns=1)
        post(gateway, "/rft/sessions/s/end", {"reward": 0.5})
        post(gateway, "/rft/sessions/s/reward", {"reward": 0.75, "revision": 1})
        (row,) = valid(gateway)
        assert (row.reward, dict(row.rewards)) == (None, {"people": 0.5})
        assert [(r.source, r.value) for r in gateway.published.of("rewards")] == [("people", 0.75)]


def test_idle_sessions_end_by_themselves(chat_policy: TransformersPolicy, config: Config) -> None:
    brief = served_config(Path(config.policy.model), idle_s=0.3)
    with explorers(brief, chat_policy) as servers, ServedGateway(brief, servers) as gateway:
        chat(gateway, f"{SECRET}:idle", turns=1)
        deadline = time.monotonic() + 30
        while gateway.sessions.open_sessions:
            gateway.run(gateway.sessions.end_idle())
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [row.experience_id for row in valid(gateway)] == ["session-idle/0"]


def test_who_may_do_what(gateway: ServedGateway) -> None:
    key = gateway.access.key("mine")
    chat(gateway, key, turns=1)
    assert post(gateway, "/rft/sessions", {}, key).status_code == 401
    assert post(gateway, "/rft/sessions/mine/end", {}, gateway.access.key("other")).status_code == 401
    assert post(gateway, "/rft/sessions/mine/end", {}, f"{SECRET}x:mine").status_code == 401
    assert post(gateway, "/rft/sessions/never/end", {}).status_code == 404
    assert post(gateway, "/rft/sessions/never/reward", {"reward": 1}).status_code == 404
    assert post(gateway, "/rft/sessions/mine/end", {"rewrad": 1}).status_code == 400
    for wrong in ({"group": "a/b"}, {"group": "a~1"}, {"samples": 0}, {"samples": 2000}, {"metadata": 3}, {"x": 1}):
        assert post(gateway, "/rft/sessions", wrong).status_code == 400, wrong
    with pytest.raises(openai.NotFoundError, match="open its group"):
        chat(gateway, f"{SECRET}:unknown~3")


def test_too_many_sessions_are_refused_and_may_try_again(chat_policy: TransformersPolicy, config: Config) -> None:
    few = served_config(Path(config.policy.model), max_sessions=1)
    with explorers(few, chat_policy) as servers, ServedGateway(few, servers) as gateway:
        chat(gateway, f"{SECRET}:one", turns=1)
        with pytest.raises(openai.RateLimitError) as refused:
            chat(gateway, f"{SECRET}:two")
        assert refused.value.response.headers["retry-after"] == "1"
        assert post(gateway, "/rft/sessions", {"samples": 2}).status_code == 429
        post(gateway, "/rft/sessions/one/end", {})
        chat(gateway, f"{SECRET}:two", turns=1)


def test_rows_that_the_log_does_not_take_become_one_failed_experience(gateway: ServedGateway) -> None:
    chat(gateway, f"{SECRET}:large", turns=1)
    gateway.published.failure = RequestError("too large")
    post(gateway, "/rft/sessions/large/end", {})
    (failed,) = valid(gateway)
    assert failed.finish_reason == "error"
    assert "too large" in str(failed.error)


def test_a_conversation_goes_on_when_its_explorer_is_killed(
    config: Config, chat_policy: TransformersPolicy, recording: RecordingPolicy
) -> None:
    other = RecordingPolicy(chat_policy, seed=-1)
    with explorers(config, recording, other) as servers, ServedGateway(config, servers) as gateway:
        first = chat(gateway, f"{SECRET}:s", turns=1)[0]
        mine, its = (0, other) if recording.calls else (1, recording)
        servers[mine].close()
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=f"{SECRET}:s", max_retries=0)
        history: list[Any] = [{"role": "user", "content": "Say something."}, first.choices[0].message]
        client.chat.completions.create(
            model="policy", messages=[*history, {"role": "user", "content": "Go on."}], max_tokens=10
        )
        client.close()
        post(gateway, "/rft/sessions/s/end", {})
        (row,) = valid(gateway)
    prompt, done = its.calls[0]
    assert row.tokens.tolist() == prompt + done.tokens.tolist()
    assert len(recording.calls) == len(other.calls) == 1


@pytest.mark.parametrize(
    ("name", "sample_id"),
    [
        ("a", "session-a/0"),
        ("a~1", "group-a/1"),
        ("train-00000001", "session-train-00000001/0"),
    ],
)
def test_the_name_of_a_session_decides_its_experience(name: str, sample_id: str, config: Config) -> None:
    assert place_of(name).sample_id == sample_id
    task = session_task(config, place_of(name).group_id, GroupRequest(), 1)
    assert task == session_task(config, place_of(name).group_id, GroupRequest(), 1)
    assert task.number == -1

"""An explorer generates for a gateway what its policy generates, and another one takes over when it dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from serving_explorers import SECRET, choice_of, explorers, served_config

from producers.gateway.contract import OverloadedError
from producers.gateway.generation_server import GenerationServer
from producers.gateway.generation_wire import PATH, write_request
from producers.gateway.remote_policy import RemotePolicies
from rft.errors import PolicyError, RequestError
from rft.policy.base import Generation, Policy, Sampling
from rft.policy.transformers.policy import TransformersPolicy
from rft.workflows.seeded_policy import SeededPolicy
from tests.producers.recording_policy import RecordingPolicy
from tests.rft.policy.tiny_policy import until

PROMPT = list(range(3, 30))


class HangingPolicy(SeededPolicy):
    """Never answers, and notes which requests were given up."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, 0)
        self.asked = 0
        self.canceled = 0

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        self.asked += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        raise AssertionError


class FailingPolicy(SeededPolicy):
    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        raise PolicyError("the batch failed")


@pytest.fixture
def folder(chat_policy: TransformersPolicy) -> Path:
    return Path(chat_policy.chat._tokenizer.name_or_path)


def asking(policies: RemotePolicies, sampling: Sampling, session: str = "one") -> Generation:
    async def ask() -> Generation:
        try:
            return await policies.of(session).generate(PROMPT, sampling)
        finally:
            await policies.close()

    return asyncio.run(ask())


def test_tokens_logprobs_and_versions_are_those_of_the_policy(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder)
    sampling = Sampling(12, 0.8, 0.9, 7)
    expected = asyncio.run(chat_policy.generate(PROMPT, sampling))
    with explorers(config, chat_policy) as servers:
        found = asking(RemotePolicies(config, SECRET, choice_of(servers)), sampling)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.logprobs.tobytes() == expected.logprobs.tobytes()
    assert found.versions.tolist() == expected.versions.tolist()
    assert found.finish_reason == expected.finish_reason


def test_a_request_moves_when_its_explorer_ends(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder)
    hanging, living = HangingPolicy(chat_policy), RecordingPolicy(chat_policy)
    with explorers(config, hanging, living) as servers:
        policies = RemotePolicies(config, SECRET, choice_of(servers))

        async def ask() -> Generation:
            request = asyncio.create_task(policies.of("one").generate(PROMPT, Sampling(6, seed=3)))
            await until(lambda: hanging.asked)
            await asyncio.to_thread(servers[0].close)
            generation = await request
            again = await policies.of("one").generate(PROMPT, Sampling(6, seed=3))
            assert again.tokens.tolist() == generation.tokens.tolist()
            await policies.close()
            return generation

        generation = asyncio.run(ask())
    assert generation.tokens.tolist() == living.calls[0][1].tokens.tolist()
    assert len(living.calls) == 2
    assert policies.moved >= 1


def test_a_request_moves_when_its_explorer_is_silent(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder)
    hanging, living = HangingPolicy(chat_policy), RecordingPolicy(chat_policy)
    with explorers(config, hanging, living) as servers:
        choice = choice_of(servers)
        policies = RemotePolicies(config, SECRET, choice)

        async def ask() -> None:
            request = asyncio.create_task(policies.of("one").generate(PROMPT, Sampling(6)))
            await until(lambda: hanging.asked)
            choice.announced("explorer-1", servers[1].url, {}, 1000.0)
            await request
            await policies.close()

        asyncio.run(ask())
        assert len(living.calls) == 1
        _until(lambda: hanging.canceled == 1)
        assert servers[0].under_way == 0


def test_an_explorer_that_fails_is_left_for_another_one(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder)
    with explorers(config, FailingPolicy(chat_policy, 0), chat_policy) as servers:
        generation = asking(RemotePolicies(config, SECRET, choice_of(servers)), Sampling(4))
    assert len(generation.tokens) > 0


def test_a_failure_of_all_explorers_says_why(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder)
    with (
        explorers(config, FailingPolicy(chat_policy, 0)) as servers,
        pytest.raises(PolicyError, match="the batch failed"),
    ):
        asking(RemotePolicies(config, SECRET, choice_of(servers)), Sampling(4))


def test_without_an_explorer_a_request_fails_after_a_while(folder: Path) -> None:
    config = served_config(folder, explorer_wait_s=0.2)
    with pytest.raises(PolicyError, match="there is no explorer"):
        asking(RemotePolicies(config, SECRET, choice_of([])), Sampling(4))


def test_explorers_with_too_much_to_do_refuse(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder, max_requests=1)
    hanging = HangingPolicy(chat_policy)
    with explorers(config, hanging) as servers:
        policies = RemotePolicies(config, SECRET, choice_of(servers))

        async def ask() -> None:
            first = asyncio.create_task(policies.of("one").generate(PROMPT, Sampling(4)))
            await until(lambda: hanging.asked)
            with pytest.raises(OverloadedError):
                await policies.of("two").generate(PROMPT, Sampling(4))
            first.cancel()
            await asyncio.wait({first})
            await policies.close()

        asyncio.run(ask())
        _until(lambda: hanging.canceled == 1)


def test_a_request_that_no_explorer_can_serve_is_not_repeated(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder)
    with explorers(config, chat_policy) as servers:
        policies = RemotePolicies(config, SECRET, choice_of(servers))
        with pytest.raises(RequestError, match="context"):
            asking(policies, Sampling(10_000_000))
        policies._context = 2**30
        policies._client = None
        with pytest.raises(RequestError, match="context"):
            asking(policies, Sampling(10_000_000))


def test_an_explorer_wants_its_key_and_weights(chat_policy: TransformersPolicy, folder: Path) -> None:
    config = served_config(folder)
    ready = [False]
    server = GenerationServer(config.gateway, SECRET, chat_policy, ready=lambda: ready[0])
    server.start()
    try:
        body = write_request(PROMPT, Sampling(2))
        assert httpx.post(server.url + PATH, json=body).status_code == 401
        wrong = {"authorization": f"Bearer {server.proof}"}
        assert httpx.post(server.url + PATH, json=body, headers=wrong).status_code == 401
        right = {"authorization": f"Bearer {server._keys.key(server.url)}"}
        assert httpx.post(server.url + PATH, json=body, headers=right).status_code == 503
        ready[0] = True
        assert httpx.post(server.url + PATH, json=body, headers=right).status_code == 200
        assert httpx.post(server.url + PATH, json=body | {"prompt": "?"}, headers=right).status_code == 400
        assert httpx.post(server.url + PATH, content=b"{", headers=right).status_code == 415
    finally:
        server.close()


def _until(condition: object, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)

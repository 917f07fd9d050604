"""Tests of what explorers rely on when a server generates for them, and of the servers that are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from completions_server import CompletionsServer
from tiny_policy import generate_all, reference_logprobs

from rft.config import OpenAIConfig, PolicyConfig
from rft.errors import PolicyError
from rft.policy.base import Sampling
from rft.policy.loading import load_model
from rft.policy.openai import OpenAIPolicy
from rft.policy.transformers.policy import TransformersPolicy

KEY = "sk-very-secret"


@pytest.fixture
def server(policy: TransformersPolicy) -> Iterator[CompletionsServer]:
    server = CompletionsServer(policy)
    yield server
    server.close()


@pytest.fixture
def connect(server: CompletionsServer, model_folder: Path) -> Iterator[Callable[..., OpenAIPolicy]]:
    opened: list[OpenAIPolicy] = []

    def connect(
        *, temperature: float = 1.0, top_p: float = 1.0, on_policy: bool = True, url: str = "", model: str | None = None
    ) -> OpenAIPolicy:
        openai = OpenAIConfig(base_url=url or server.url, model=model, api_key_env="TEST_API_KEY", timeout_s=20)
        opened.append(
            OpenAIPolicy(
                PolicyConfig(engine="openai", model=str(model_folder), openai=openai),
                version=4,
                training=Sampling(8, temperature, top_p),
                on_policy=on_policy,
            )
        )
        return opened[-1]

    yield connect
    for policy in opened:
        policy.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1.5])
def test_tokens_and_logprobs_are_the_servers_and_carry_one_version(
    connect: Callable[..., OpenAIPolicy], model_folder: Path, temperature: float
) -> None:
    policy = connect(temperature=1.5)
    prompts = [policy.encode(text) for text in ("a>", "tree>", "backwards>")] * 4
    requests = [(prompt, Sampling(12, temperature, seed=seed)) for seed, prompt in enumerate(prompts)]
    model = load_model(model_folder, device="cpu")
    for prompt, generation in zip(prompts, generate_all(policy, requests), strict=True):
        expected = reference_logprobs(model, prompt, generation, temperature or 1.0)
        assert generation.logprobs == pytest.approx(expected, abs=1e-4)
        assert set(generation.versions.tolist()) == {4}
        assert generation.finish_reason in ("stop", "length")
    assert policy.stats["sequences"] == 12
    assert policy.stats["tokens"] > 12


def test_a_server_without_logprobs_is_refused_for_on_policy_algorithms_only(
    server: CompletionsServer, connect: Callable[..., OpenAIPolicy]
) -> None:
    server.gives_logprobs = False
    with pytest.raises(PolicyError, match=r"no logprobs.*sampled with.*sft"):
        connect()
    demonstrator = connect(on_policy=False)
    written = generate_all(demonstrator, [(demonstrator.encode("a>"), Sampling(5))])[0]
    assert len(written.tokens) == len(written.logprobs) > 0


def test_a_server_whose_logprobs_are_of_another_temperature_is_refused(
    server: CompletionsServer, connect: Callable[..., OpenAIPolicy]
) -> None:
    server.gives_raw_logprobs = True
    with pytest.raises(PolicyError, match=r"temperature 1.5.*processed_logprobs"):
        connect(temperature=1.5)
    connect(temperature=1.0)


def test_a_server_without_token_ids_is_refused(server: CompletionsServer, connect: Callable[..., OpenAIPolicy]) -> None:
    server.gives_token_ids = False
    with pytest.raises(PolicyError, match="no token ids"):
        connect(on_policy=False)


def test_the_model_must_be_configured_if_a_server_has_several(
    server: CompletionsServer, connect: Callable[..., OpenAIPolicy]
) -> None:
    server.models = ["one", "two"]
    with pytest.raises(PolicyError, match=r"one, two: set policy.openai.model"):
        connect()
    connect(model="two")


def test_the_key_comes_from_the_environment_and_is_never_logged(
    server: CompletionsServer,
    connect: Callable[..., OpenAIPolicy],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.key = KEY
    with pytest.raises(PolicyError, match="TEST_API_KEY is not set"):
        connect()
    monkeypatch.setenv("TEST_API_KEY", "sk-wrong-one")
    with pytest.raises(PolicyError, match="TEST_API_KEY is not accepted") as refused:
        connect()
    monkeypatch.setenv("TEST_API_KEY", KEY)
    connect()
    assert server.seen_keys[-1] == f"Bearer {KEY}"
    assert "sk-" not in caplog.text + str(refused.value)


def test_an_error_names_a_server_that_is_unreachable_or_answers_nonsense(
    server: CompletionsServer, connect: Callable[..., OpenAIPolicy]
) -> None:
    with pytest.raises(PolicyError, match=r"127.0.0.1:1/v1 cannot be reached.*is the server up"):
        connect(url="http://127.0.0.1:1/v1")
    policy = connect()
    server.broken = True
    (error,) = generate_all(policy, [(policy.encode("a>"), Sampling(3))])
    assert isinstance(error, PolicyError)
    assert "without choices" in str(error)
    assert policy.error is None


def test_new_weights_are_not_sent_and_tokens_keep_the_old_version(
    connect: Callable[..., OpenAIPolicy], other_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = connect()
    policy.update_weights(other_weights, 5)
    policy.update_weights(other_weights, 6)
    assert caplog.text.count("keeps its own weights") == 1
    written = generate_all(policy, [(policy.encode("a>"), Sampling(3))])[0]
    assert set(written.versions.tolist()) == {4}


def test_a_stop_text_ends_a_generation_at_the_server(
    connect: Callable[..., OpenAIPolicy], policy: TransformersPolicy
) -> None:
    served = connect()
    prompt = served.encode("tree>")
    (free,) = generate_all(served, [(prompt, Sampling(12, 0.0))])
    stop = served.decode(free.tokens.tolist())[3]
    (stopped,) = generate_all(served, [(prompt, Sampling(12, 0.0, stop=(stop,)))])
    first = served.decode(free.tokens.tolist()).index(stop)
    assert stopped.finish_reason == "stop"
    assert stopped.tokens.tolist() == free.tokens[: first + 1].tolist()

"""Compares turns through the gateway with the engine called directly: tokens per second, and what a history costs.

python benchmarks/gateway.py [--sessions 64] [--turns 4] [--tokens 32] [--rounds 5] [--width 512] [--layers 8]

The first part lets concurrent sessions converse through the gateway, each with the client of `openai` in a process of
its own. The same prompts then go to the engine directly, turn after turn of each session. Both sides take turns. The
model is random and never ends a turn, so both write the same number of tokens.

The second part is one session with many turns. It shows the time of a turn without the engine's share, at the client
(which sends the whole history each time) and in the gateway alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from producers.gateway.open_session import OpenSession
from producers.gateway.rollout_gateway import RolloutGateway
from producers.gateway.session import Session
from rft.config import GatewayConfig, PolicyConfig
from rft.policy.base import Generation, Sampling
from rft.policy.transformers.policy import TransformersPolicy
from rft.workflows.seeded_policy import SeededPolicy
from schemas.events import Task

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
QUESTION = "Say what comes after number {}."
CLIENT = """
import asyncio, json, sys, time
from openai import AsyncOpenAI

async def converse(base_url, api_key, turns, tokens, question):
    client = AsyncOpenAI(base_url=base_url, api_key=api_key, timeout=600)
    messages, seconds = [], []
    for turn in range(turns):
        messages.append({"role": "user", "content": question.format(turn)})
        began = time.perf_counter()
        answer = await client.chat.completions.create(model="policy", messages=messages, max_tokens=tokens)
        seconds.append(time.perf_counter() - began)
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
    return seconds

async def main(order):
    work = [converse(*session, order["turns"], order["tokens"], order["question"]) for session in order["sessions"]]
    return await asyncio.gather(*work)

print("ready", flush=True)
order = json.loads(sys.stdin.readline())
print(json.dumps(asyncio.run(main(order))), flush=True)
"""


def make_model(folder: Path, width: int, layers: int) -> None:
    """Save a random chat model over bytes that never ends a turn."""
    torch.manual_seed(0)
    vocabulary = {token: number for number, token in enumerate([PAD, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([START, END])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=END, chat_template=TEMPLATE)
    shape = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 32, num_key_value_heads=width // 32, head_dim=32, max_position_embeddings=32768,
        tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen3ForCausalLM(shape)
    with torch.no_grad():
        # All special tokens have negative logits of a size that sampling never meets.
        model.lm_head.weight[[tokenizer.pad_token_id, *tokenizer.convert_tokens_to_ids([START, END])]] = 0
        model.model.norm.weight.fill_(30.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class RecordingPolicy(SeededPolicy):
    """Passes generations on, and keeps each prompt and how long the engine took."""

    def __init__(self, policy: TransformersPolicy, seed: int) -> None:
        super().__init__(policy, seed)
        self.prompts: list[Sequence[int]] = []
        self.written = 0
        self.seconds: list[float] = []

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        self.prompts.append(list(prompt_tokens))
        began = time.perf_counter()
        generation = await super().generate(prompt_tokens, sampling)
        self.seconds.append(time.perf_counter() - began)
        self.written += len(generation.tokens)
        return generation


def task(number: int, max_tokens: int) -> Task:
    return Task(f"train-{number:08d}", number, "train", "benchmark", "", None, 1, max_tokens, 1.0, 1.0, number, 0, 0)


async def through_gateway(
    gateway: RolloutGateway, policies: Sequence[RecordingPolicy], turns: int, tokens: int
) -> tuple[float, list[list[float]], list[list[float]]]:
    """Return the seconds in all, and of each turn at the client and in the gateway's session, by session."""
    sampling = Sampling(max_tokens=turns * tokens)
    async with AsyncExitStack() as stack:
        opened: list[OpenSession] = [
            await stack.enter_async_context(gateway.session(task(number, turns * tokens), policy, sampling))
            for number, policy in enumerate(policies)
        ]
        inside = [_timed(one.session) for one in opened]
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        await client.stdout.readline()
        order = {
            "sessions": [(one.base_url, one.api_key) for one in opened],
            "turns": turns,
            "tokens": tokens,
            "question": QUESTION,
        }
        began = time.perf_counter()
        client.stdin.write(json.dumps(order).encode() + b"\n")
        seconds = json.loads(await client.stdout.readline())
        took = time.perf_counter() - began
        await client.wait()
    return took, seconds, inside


def _timed(session: Session) -> list[float]:
    """Let a session note the seconds of each request, the engine's included."""
    seconds: list[float] = []
    complete = session.complete

    async def timed(request: object) -> object:
        began = time.perf_counter()
        try:
            return await complete(request)  # type: ignore[arg-type]
        finally:
            seconds.append(time.perf_counter() - began)

    session.complete = timed  # type: ignore[method-assign, assignment]
    return seconds


async def directly(policy: TransformersPolicy, sessions: Sequence[Sequence[Sequence[int]]], tokens: int) -> float:
    """Return the seconds that the engine needs for the same prompts, turn after turn of each session."""

    async def converse(number: int, prompts: Sequence[Sequence[int]]) -> int:
        seeded = SeededPolicy(policy, number)
        sampling = Sampling(max_tokens=tokens, seed=number)
        return sum([len((await seeded.generate(prompt, sampling)).tokens) for prompt in prompts])

    began = time.perf_counter()
    written = await asyncio.gather(*(converse(number, prompts) for number, prompts in enumerate(sessions)))
    took = time.perf_counter() - began
    assert sum(written) == tokens * sum(map(len, sessions)), "the model ended a turn"
    return took


async def compare(policy: TransformersPolicy, gateway: RolloutGateway, arguments: argparse.Namespace) -> None:
    written = arguments.sessions * arguments.turns * arguments.tokens
    ratios = []
    for number in range(arguments.rounds + 1):
        policies = [RecordingPolicy(policy, session) for session in range(arguments.sessions)]
        through, _, _ = await through_gateway(gateway, policies, arguments.turns, arguments.tokens)
        assert sum(one.written for one in policies) == written, "the model ended a turn"
        direct = await directly(policy, [one.prompts for one in policies], arguments.tokens)
        if number:  # the first round warms both up
            ratios.append(direct / through)
            print(f"gateway {written / through:8.0f} tokens/s   direct {written / direct:8.0f}   {ratios[-1]:.3f}")
    print(f"gateway over direct, {arguments.sessions} sessions: median {statistics.median(ratios):.3f}")


async def long_history(policy: TransformersPolicy, gateway: RolloutGateway, turns: int) -> None:
    recording = RecordingPolicy(policy, 0)
    _, [client], [inside] = await through_gateway(gateway, [recording], turns, 4)
    print(f"one session of {turns} turns, ms a turn without the engine's share:")
    print("   turns  history (tokens)  at the client  in the session")
    step = turns // 5
    for first in range(0, turns, step):
        span = slice(first, first + step)
        outside = [all_of - engine for all_of, engine in zip(client[span], recording.seconds[span], strict=True)]
        own = [all_of - engine for all_of, engine in zip(inside[span], recording.seconds[span], strict=True)]
        history = len(recording.prompts[min(first + step, turns) - 1])
        print(
            f"{first + 1:4}-{first + step:<4} {history:16,} {statistics.median(outside) * 1000:14.1f} "
            f"{statistics.median(own) * 1000:15.2f}"
        )


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), arguments.width, arguments.layers)
        policy = TransformersPolicy(PolicyConfig(model=folder, device="cpu"))
        gateway = RolloutGateway(GatewayConfig(), policy, "policy")
        gateway.start()
        try:
            await compare(policy, gateway, arguments)
            await long_history(policy, gateway, arguments.history)
        finally:
            gateway.close()
            policy.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--history", type=int, default=200, help="turns of the long session")
    asyncio.run(main(parser.parse_args()))

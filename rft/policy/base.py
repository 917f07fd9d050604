"""The contract of a policy: generate tokens, stamp each with its weight version, take new weights at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rft.errors import RequestError
from rft.policy.chat_template import ChatTemplate
from schemas.events import LogprobArray, TokenArray

if TYPE_CHECKING:
    # It imports torch, which the preflight must not.
    from rft.weights.transfer_spec import TransferSpec

MAX_STOPS = 16
MAX_STOP_CHARS = 256


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters of one sequence."""

    max_tokens: int
    """The most tokens to generate, the end-of-sequence token included."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that holds this much probability."""
    seed: int = 0
    """The same seed, prompt and weights give the same tokens, up to the rounding of differently composed batches."""
    stop: tuple[str, ...] = ()
    """Texts at which generation ends, special tokens spelled out. The generation holds the tokens of the text that was
    met, in the last of them perhaps with a few characters more."""


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """The tokens that a policy generated for one prompt. Each array has N elements, end-of-sequence token included."""

    tokens: TokenArray
    """int32 [N]"""
    logprobs: LogprobArray
    """float32 [N]: log-probability under the distribution that was sampled from, temperature and top_p applied.
    For greedy decoding: under the model's own distribution (temperature 1)."""
    versions: TokenArray
    """int32 [N]: the weight version whose logits each token was drawn from."""
    finish_reason: str
    """``stop`` (end of sequence, or one of ``Sampling.stop``) or ``length`` (``max_tokens`` reached)."""


class Policy(Protocol):
    """Generates text for workflows. All methods may be called from any thread, ``generate`` from any event loop."""

    @property
    def version(self) -> int:
        """The weight version that the next token will be stamped with."""
        ...

    @property
    def error(self) -> Exception | None:
        """The error that ended the policy, if it was not ``close``. After it, nothing can be generated any more."""
        ...

    @property
    def stats(self) -> Mapping[str, float]:
        """Counters since the start, times in seconds."""
        ...

    @property
    def context(self) -> int:
        """The model's context: the most tokens of prompt and answer together."""
        ...

    @property
    def chat(self) -> ChatTemplate:
        """Renders chat messages for this model."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``, with the special tokens that the model expects around a text."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        ...

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``. Canceling the call frees its row in the batch.

        Raises RequestError if the prompt cannot be continued (it is empty, outside the vocabulary or longer than the
        model's context), PolicyError if generation failed; other requests go on. After EngineDiedError all requests
        fail.
        """
        ...

    def update_weights(self, path: Path, version: int) -> None:
        """Load the weights in folder ``path`` and use them from the next token on. Return once they are in use.

        Sequences in flight continue from their last token; their later tokens carry the new version. Raises
        PolicyError if the weights cannot be read or do not fit; the policy keeps the old ones then.
        """
        ...

    @property
    def receivers(self) -> int:
        """Number of ranks that this policy needs in a collective transfer of weights; 0 if it only reads folders."""
        ...

    def receive_weights(self, specs: Sequence[TransferSpec], version: int) -> None:
        """Take part in a collective transfer, with one specification a rank. Return once the new weights are in use.

        Raises WeightsError if the weights do not arrive or are not what was announced, and PolicyError if they do not
        fit; the policy keeps the old ones then.
        """
        ...

    def abort_transfer(self) -> None:
        """Abort ``receive_weights``, which runs in another thread. It raises soon, or has just succeeded."""
        ...

    def close(self) -> None:
        """Stop generating. Unfinished requests fail with PolicyError."""
        ...


def check_request(prompt: Sequence[int], sampling: Sampling, *, vocabulary: int, context: int) -> None:
    """Raise RequestError unless a model can continue ``prompt`` with ``sampling``.

    Args:
        prompt: token ids.
        sampling: how to continue it.
        vocabulary: number of token ids of the model.
        context: number of positions of the model.
    """
    if not prompt:
        raise RequestError("the prompt is empty: give it at least one token")
    if not 0 <= min(prompt) <= max(prompt) < vocabulary:
        raise RequestError(f"the prompt has token ids outside the vocabulary of {vocabulary}")
    if sampling.max_tokens < 1:
        raise RequestError(f"max_tokens is {sampling.max_tokens}, it must be at least 1")
    if len(sampling.stop) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_CHARS for stop in sampling.stop):
        raise RequestError(
            f"stop may hold {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters, got {sampling.stop!r:.200}"
        )
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or sampling.seed < 0:
        raise RequestError(f"temperature and seed must be >= 0 and top_p in (0, 1], got {sampling}")
    if len(prompt) + sampling.max_tokens > context:
        raise RequestError(
            f"{len(prompt)} prompt tokens and max_tokens = {sampling.max_tokens} exceed the model's context "
            f"of {context}: shorten the prompt or lower rollout.max_tokens"
        )

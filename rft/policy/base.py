"""What every policy offers: generate tokens, stamp each with its weight version, take new weights at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rft.weights.reception import Reception
from schemas.events import LogprobArray, TokenArray


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one sequence is to be sampled."""

    max_tokens: int
    """Most tokens to write, the end-of-sequence token included."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that holds this much probability."""
    seed: int = 0
    """Same seed, prompt and weights: same tokens, up to the rounding of differently composed batches."""


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What the policy wrote after one prompt; all arrays have N elements, the end-of-sequence token included."""

    tokens: TokenArray
    """int32 [N]"""
    logprobs: LogprobArray
    """float32 [N]: log-probability under the distribution that was sampled from, temperature and top_p applied.
    For greedy decoding: under the model's own distribution (temperature 1)."""
    versions: TokenArray
    """int32 [N]: weight version whose logits each token was drawn from."""
    finish_reason: str
    """``stop`` (end of sequence) or ``length`` (``max_tokens`` reached)."""


class Policy(Protocol):
    """Generates text for workflows. All methods may be called from any thread, ``generate`` from any event loop."""

    @property
    def version(self) -> int:
        """Weight version that the next token will be stamped with."""
        ...

    @property
    def error(self) -> Exception | None:
        """What ended the policy, if it was not ``close``; nothing can be generated any more."""
        ...

    @property
    def stats(self) -> Mapping[str, float]:
        """Counters since start, times in seconds."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        ...

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        """Continue ``prompt_tokens``. Cancelling the call frees its place in the batch.

        Raises PolicyError if the prompt cannot be continued (empty, outside the vocabulary, longer than the
        model's context) or generation failed; other requests are not touched. EngineDiedError: so do all of them.
        """
        ...

    def update_weights(self, path: Path, version: int) -> None:
        """Load the weights in folder ``path`` and use them from the next token on; returns once they are in use.

        Sequences in flight go on where they are; their later tokens carry the new version. Raises PolicyError
        if the weights cannot be read or do not fit, and then keeps the old ones.
        """
        ...

    @property
    def receivers(self) -> int:
        """Ranks that it needs in a collective transfer of weights; 0: it takes folders only."""
        ...

    def receive_weights(self, receptions: Sequence[Reception], version: int) -> None:
        """Take part in a collective transfer, one reception a rank, and use the weights from the next token on.

        Returns once they are in use. Raises WeightsError when they did not come or are not what was announced,
        PolicyError when they do not fit; the old ones are kept then.
        """
        ...

    def abort_reception(self) -> None:
        """Break off ``receive_weights``, which another thread is in; it raises soon, or has just succeeded."""
        ...

    def close(self) -> None:
        """Stop generating; unfinished requests fail with PolicyError."""
        ...

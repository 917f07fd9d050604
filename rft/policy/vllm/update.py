"""Leads new weights into a vLLM engine: they are fetched while it generates, and loaded while it pauses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from rft.config import PolicyConfig
from rft.errors import EngineDiedError, PolicyError, WeightsError, first_line

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

PAUSE_MODES = {"continue": "keep", "finish": "wait", "requeue": "abort"}
"""vLLM's pause mode for each value of ``policy.on_update``."""
SHUTDOWN_S = 1.0
STAGING_POLL_S = 0.01
ADAPTER_NAME, ADAPTER_ID = "rft", 1
"""An engine of ours holds one set of adapters: each version replaces the one before under the same name."""


class LoadOptions(TypedDict):
    """How the workers load weights."""

    adapter: str | None
    """The text of ``adapter_config.json`` if they are adapters that are loaded as such."""
    merge_into: tuple[str, float] | None
    """If they are adapters to be merged: the folder of the base model, and the factor that scales the adapters."""


class WeightSource(LoadOptions):
    """Where the workers get weights from. Passes to them through ``collective_rpc``."""

    transport: Literal["checkpoint", "collective"]
    folder: NotRequired[str]
    """A folder in Hugging Face layout; for ``checkpoint``."""
    specs: NotRequired[list[str]]
    """A :class:`rft.weights.transfer_spec.TransferSpec` in JSON for each worker; for ``collective``."""


def lora_request(folder: Path | str = "loaded", *, load: bool = False) -> LoRARequest:
    """Return the request to generate with the loaded adapters or, with ``load``, to load those in ``folder``."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(ADAPTER_NAME, ADAPTER_ID, str(folder), load_inplace=load)


async def stage(engine: AsyncLLM, source: WeightSource, version: int, *, timeout_s: float) -> None:
    """Return once every worker holds the new tensors in addition to the old ones. Raises WeightsError."""
    deadline = time.monotonic() + timeout_s
    await engine.collective_rpc("stage_weights", args=(version, source))
    while True:
        states = await engine.collective_rpc("staging_state", args=(version,))
        if error := next((error for _, error in states if error), ""):
            raise WeightsError(f"weight version {version} did not reach vLLM: {error}")
        if all(done for done, _ in states):
            return
        if time.monotonic() > deadline:
            await engine.collective_rpc("drop_staged_weights")
            raise WeightsError(
                f"weight version {version} did not arrive within {timeout_s:g} s (policy.vllm.stage_timeout_s)"
            )
        await asyncio.sleep(STAGING_POLL_S)


@asynccontextmanager
async def paused(engine: AsyncLLM, config: PolicyConfig, *, requeue: bool) -> AsyncIterator[Callable[[], float]]:
    """Pause generation. Yields a function that returns for how many seconds nothing has been generated.

    With ``requeue`` the sequences in flight start over, whatever ``policy.on_update`` says.
    """
    on_update = "requeue" if requeue else config.on_update
    # Only sequences that continue can keep their caches.
    keep_caches = on_update == "continue" and config.keep_kv
    began = time.monotonic()
    await engine.pause_generation(mode=PAUSE_MODES[on_update], clear_cache=not keep_caches)
    if on_update == "finish":
        began = time.monotonic()
    try:
        yield lambda: time.monotonic() - began
    finally:
        if not engine.errored:
            await engine.resume_generation()


async def load_adapters(engine: AsyncLLM, version: int) -> None:
    """Load the staged adapters. Raises PolicyError if the engine cannot use them; it keeps the old ones then."""
    errors = await engine.collective_rpc("load_staged_adapters", args=(version,))
    if error := next(filter(None, errors), ""):
        raise PolicyError(f"vLLM cannot use the adapters of weight version {version}: {error}")
    await engine.update_weight_version(str(version))


async def load_model(engine: AsyncLLM, version: int) -> None:
    """Load the staged model. Raises EngineDiedError if that fails halfway: some layers may be new then, others old."""
    from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

    try:
        await engine.start_weight_update()
        await engine.update_weights(WeightTransferUpdateRequest({"version": version}))
        await engine.finish_weight_update(str(version))
    except Exception as error:
        # A mixture of two versions must not be sampled from.
        engine.shutdown(timeout=SHUTDOWN_S)
        raise EngineDiedError(f"loading weight version {version} failed halfway: {first_line(error)}") from error

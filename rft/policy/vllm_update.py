"""New weights into a vLLM engine: fetched while it generates, taken into use while it pauses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from rft.config import PolicyConfig
from rft.errors import EngineDiedError, PolicyError, WeightsError, first_line

PAUSES = {"continue": "keep", "finish": "wait", "requeue": "abort"}
"""``policy.on_update`` in vLLM's words."""
SHUTDOWN_S = 1.0
STAGED_POLL_S = 0.01


async def stage(engine: Any, source: Mapping[str, Any], version: int, *, timeout_s: float) -> None:
    """Return when every worker holds the new tensors beside the old ones. Raises WeightsError."""
    deadline = time.monotonic() + timeout_s
    await engine.collective_rpc("stage_weights", args=(version, source))
    while True:
        states = await engine.collective_rpc("weights_staged", args=(version,))
        if error := next((error for _, error in states if error), ""):
            raise WeightsError(f"weight version {version} did not reach vLLM: {error}")
        if all(done for done, _ in states):
            return
        if time.monotonic() > deadline:
            await engine.collective_rpc("forget_weights")
            raise WeightsError(
                f"weight version {version} did not arrive within {timeout_s:g} s (policy.vllm.stage_timeout_s)"
            )
        await asyncio.sleep(STAGED_POLL_S)


@asynccontextmanager
async def paused(engine: Any, config: PolicyConfig, *, requeue: bool) -> AsyncIterator[Callable[[], float]]:
    """Generation pauses while this lasts; yields how long it has, in seconds, since the last sequence went on.

    ``requeue``: the sequences that are being written begin again, whatever ``policy.on_update`` says.
    """
    on_update = "requeue" if requeue else config.on_update
    # Caches can be kept only by sequences that go on.
    keep_caches = on_update == "continue" and config.keep_kv
    began = time.monotonic()
    await engine.pause_generation(mode=PAUSES[on_update], clear_cache=not keep_caches)
    if on_update == "finish":
        began = time.monotonic()
    try:
        yield lambda: time.monotonic() - began
    finally:
        if not engine.errored:
            await engine.resume_generation()


async def take_adapters(engine: Any, version: int) -> None:
    """Use the staged adapters. Raises PolicyError when the engine cannot; it keeps the old ones then."""
    errors = await engine.collective_rpc("take_adapters", args=(version,))
    if error := next(filter(None, errors), ""):
        raise PolicyError(f"vLLM cannot use the adapters of weight version {version}: {error}")
    await engine.update_weight_version(str(version))


async def take_model(engine: Any, version: int) -> None:
    """Use the staged model. Raises EngineDiedError when that breaks off: half of the layers may be new then."""
    from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

    try:
        await engine.start_weight_update()
        await engine.update_weights(WeightTransferUpdateRequest({"version": version}))
        await engine.finish_weight_update(str(version))
    except Exception as error:
        # Nobody may sample from them.
        engine.shutdown(timeout=SHUTDOWN_S)
        raise EngineDiedError(f"weight version {version} broke off while it was loaded: {first_line(error)}") from error

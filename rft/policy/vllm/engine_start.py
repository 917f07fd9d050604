"""Starts a vLLM engine as we use it. No other file knows vLLM's arguments and environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rft.config import PolicyConfig
from rft.errors import PolicyError, first_line
from rft.policy.loading import text_config

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

WORKER_EXTENSION = "rft.policy.vllm.worker.StagingWorker"
EXPLORER = "RFT_EXPLORER_PID"
"""Environment variable with the process id of the explorer that owns the engine."""
TRANSFER_BACKEND = "rft"
"""The name under which our weight transfer is registered with vLLM."""
NOT_INSTALLED = (
    'policy.engine = "vllm", but vLLM is not installed: on GPUs `pip install "stream-rft[vllm]"`, on CPUs `make vllm`'
)


def runs_on_cpu(config: PolicyConfig) -> bool:
    """Return whether the installed vLLM is built for CPUs. Raises PolicyError if there is none."""
    with _environment(config):  # vLLM reads it when it is first imported
        try:
            from vllm.platforms import current_platform
        except ImportError as error:
            raise PolicyError(f"{NOT_INSTALLED} ({error})") from error
    return bool(current_platform.is_cpu())


def start_engine(config: PolicyConfig, seed: int, *, lora_rank: int = 0) -> AsyncLLM:
    """Start an engine in a child process. This takes tens of seconds and needs a running event loop.

    With a ``lora_rank`` the engine takes adapters of up to that rank and no whole models; with 0 only whole models.
    Logprobs are those of the distribution that is sampled from, temperature and top_p applied. Raises PolicyError.
    """
    with _environment(config):
        try:
            from vllm.config import WeightTransferConfig
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise PolicyError(f"{NOT_INSTALLED} ({error})") from error
        on_cpu = bool(current_platform.is_cpu())
        if config.device != "auto" and (config.device == "cpu") != on_cpu:
            raise PolicyError(
                f"policy.device = '{config.device}', but this vLLM is built for {current_platform.device_type}: "
                "install the other build, or use 'auto'"
            )
        if on_cpu:
            _check_head_dim(config.model)
        vllm = config.vllm
        arguments = AsyncEngineArgs(
            model=config.model,
            load_format="safetensors",
            dtype=config.dtype,
            seed=seed,
            max_model_len=vllm.max_model_len,
            max_num_seqs=config.max_batch,
            gpu_memory_utilization=vllm.gpu_memory_utilization,
            tensor_parallel_size=vllm.tensor_parallel,
            enable_prefix_caching=vllm.prefix_caching,
            enforce_eager=on_cpu if vllm.enforce_eager is None else vllm.enforce_eager,
            generation_config="vllm",
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            worker_extension_cls=WORKER_EXTENSION,
            weight_transfer_config=WeightTransferConfig(backend=TRANSFER_BACKEND),
            enable_lora=lora_rank > 0,
            max_lora_rank=_supported_rank(lora_rank),
        )
        try:
            return AsyncLLM.from_engine_args(arguments)
        # vLLM raises any error that its parts raise; the engine's own message is in the explorer's log.
        except Exception as error:
            raise PolicyError(f"vLLM cannot serve the model in {config.model}: {_cause(error)}") from error


@contextmanager
def _environment(config: PolicyConfig) -> Iterator[None]:
    """Set the environment variables that the engine inherits. Those that are set already stay as they are."""
    wanted = {
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # forking a process with threads may deadlock
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_KVCACHE_SPACE": str(config.vllm.cpu_kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding would take cores that other roles run on
        "OMP_NUM_THREADS": str(config.threads),
        EXPLORER: str(os.getpid()),
    }
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _check_head_dim(model: str) -> None:
    """Raise PolicyError for a head_dim without kernels. The engine would find it only after half a minute."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    shape = text_config(model)
    head_dim = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if head_dim not in known:
        raise PolicyError(
            f"the model in {model} has a head_dim of {head_dim}; vLLM on CPUs knows {', '.join(map(str, known))}: "
            'use policy.engine = "transformers" for it'
        )


def _supported_rank(lora_rank: int) -> int:
    """Return the smallest rank of at least ``lora_rank`` that vLLM has kernels for. Raises PolicyError beyond all."""
    from typing import get_args

    from vllm.config.lora import MaxLoRARanks

    known = get_args(MaxLoRARanks)
    if lora_rank > max(known):
        raise PolicyError(
            f"vLLM takes adapters of rank {max(known)} at most, trainer.lora.rank is {lora_rank}: lower it, or set "
            'weights.content = "model"'
        )
    return int(min(rank for rank in known if rank >= lora_rank))


def _cause(error: Exception) -> str:
    return " ".join(str(error).split()) if "validation error" in str(error) else first_line(error)

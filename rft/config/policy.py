"""What generates text, and how it takes new weights while it does."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rft.config.section import Section


class VllmConfig(Section):
    max_model_len: int | None = Field(default=None, ge=1)
    """Longest sequence, prompt included; by default the model's own context. Shorter needs less memory."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that weights and key-value cache may fill. Less where a trainer shares the GPU."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1)
    """Key-value cache on CPUs."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that one explorer splits the model over."""
    prefix_caching: bool = True
    """Read what prompts have in common once; the samples of a group always have."""
    enforce_eager: bool | None = None
    """Run the model without compiling it: it starts in seconds instead of minutes and generates slower. By default on
    CPUs only."""
    merge_adapters: bool | None = None
    """With ``weights.content = "adapters"``: merge what comes into the model, which then generates as fast as without,
    while each worker makes a whole model of it in host memory; or else compute with the adapters beside the model. By
    default on CPUs only, where the latter takes more than twice as long."""
    stage_timeout_s: float = Field(default=600.0, gt=0)
    """How long new weights may take to arrive in the engine's memory, before generation pauses for them."""


class OpenAIConfig(Section):
    base_url: str = "http://127.0.0.1:8000/v1"
    """Where the server's API begins, ``/v1`` included."""
    model: str | None = None
    """The model's name there; by default the only one that the server lists."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key; unset or empty: none is sent. The key itself is no configuration."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait for one completion."""


class PolicyConfig(Section):
    model: str = "model"
    """Folder in Hugging Face layout (config, tokenizer, safetensors), relative to the working directory."""
    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    """What generates text. ``transformers``: in the explorer, nothing more to install. ``vllm``: a vLLM engine beneath
    the explorer, for models of any size. ``openai``: a server with OpenAI's completions API that returns logprobs."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``. vLLM runs on what its build is for."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the explorer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of each explorer."""
    max_batch: int = Field(default=256, ge=1)
    """Most sequences that are generated together."""
    on_update: Literal["continue", "finish", "requeue"] = "continue"
    """What becomes of sequences that are being written when new weights come. ``continue``: they pause for the transfer
    and go on, later tokens stamped with the new version. ``finish``: the new weights wait until they have ended.
    ``requeue``: they begin again with the new weights. Only vLLM can do other than ``continue``."""
    keep_kv: bool = True
    """Sequences that continue keep the keys and values that older weights computed, which costs nothing; ``false``
    (vLLM only) computes them anew, so that each token is exactly what its version would have written."""
    vllm: VllmConfig = VllmConfig()
    """For ``engine = "vllm"``."""
    openai: OpenAIConfig = OpenAIConfig()
    """For ``engine = "openai"``."""

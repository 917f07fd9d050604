"""``[policy]``: what generates text, and how it takes over new weights."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rft.config.section import Section


class VllmConfig(Section):
    max_model_len: int | None = Field(default=None, ge=1)
    """Longest sequence, prompt included; by default the model's own context length. A shorter one needs less memory."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that weights and key-value cache may fill. Lower it if a trainer uses the same GPU."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1)
    """Size of the key-value cache on CPUs, in GiB."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that one explorer splits the model over."""
    prefix_caching: bool = True
    """Compute a prefix that several prompts share only once. The samples of a group always share their prompt."""
    enforce_eager: bool | None = None
    """Run the model without compiling it: it starts in seconds instead of minutes, and generates more slowly. By
    default on CPUs only."""
    merge_adapters: bool | None = None
    """With ``weights.content = "adapters"``: merge new adapters into the model. It then generates as fast as without
    adapters, but each worker builds a whole model in host memory. If false, vLLM computes with the adapters separately.
    By default on CPUs only, where separate adapters take more than twice as long."""
    stage_timeout_s: float = Field(default=600.0, gt=0)
    """How long new weights may take to reach the engine's memory, before generation pauses for them."""


class OpenAIConfig(Section):
    base_url: str = "http://127.0.0.1:8000/v1"
    """Base URL of the server's API, ``/v1`` included."""
    model: str | None = None
    """The model's name on the server; by default the only one that the server lists."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key. If it is unset or empty, no key is sent. The key itself never stands
    in the configuration."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait for one completion."""


class PolicyConfig(Section):
    model: str = "model"
    """Folder in Hugging Face layout (config, tokenizer, safetensors), relative to the working directory; or a
    repository of the Hugging Face hub, ``owner/name``. A folder of that name wins, unless it says ``hf:owner/name``."""
    revision: str | None = None
    """Branch, tag or commit of the hub's repository, by default ``main``. A run resolves it once, notes the commit in
    its folder, and resumes with that. A folder has none."""
    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    """What generates text. ``transformers``: inside the explorer, with nothing more to install. ``vllm``: a vLLM engine
    that the explorer starts, for models of any size. ``openai``: a server with OpenAI's completions API that returns
    logprobs."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``. vLLM runs on what its build is for."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the explorer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of each explorer."""
    max_batch: int = Field(default=256, ge=1)
    """Limit on sequences that are generated together."""
    on_update: Literal["continue", "finish", "requeue"] = "continue"
    """What happens to unfinished sequences when new weights come. ``continue``: they pause for the transfer and
    continue, and later tokens are stamped with the new version. ``finish``: the new weights wait until these sequences
    have ended. ``requeue``: they begin again with the new weights. Only vLLM has ``finish`` and ``requeue``."""
    keep_kv: bool = True
    """A sequence that continues keeps the keys and values that older weights computed, which costs nothing. ``false``
    (vLLM only) computes them again, so that each token is exactly what its version would have written."""
    template_options: dict[str, Any] = {}
    """Variables for the chat template of the model's tokenizer, such as ``{enable_thinking = false}`` for Qwen 3."""
    vllm: VllmConfig = VllmConfig()
    """Settings for ``engine = "vllm"``."""
    openai: OpenAIConfig = OpenAIConfig()
    """Settings for ``engine = "openai"``."""

"""The one set of adapters that an engine of ours holds, in vLLM's words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

NAME, NUMBER = "rft", 1


def adapters_request(folder: Path | str = "loaded", *, new: bool = False) -> LoRARequest:
    """To generate with the adapters that are loaded, or with ``new`` to load those in ``folder`` in their place."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(NAME, NUMBER, str(folder), load_inplace=new)

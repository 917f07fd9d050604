"""Writes whole tensors into parameters that ZeRO has split among the ranks. All ranks must call these at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad

BUCKET_BYTES = 256 * 2**20
"""Bytes of split weights that are gathered at a time. It bounds the memory that gathering takes."""


def buckets(parameters: dict[str, nn.Parameter]) -> Iterator[dict[str, nn.Parameter]]:
    """Yield consecutive parameters of up to :data:`BUCKET_BYTES` in float32, at least one at a time."""
    bucket: dict[str, nn.Parameter] = {}
    size = 0
    for name, parameter in parameters.items():
        bytes_ = 4 * int(np.prod(whole_shape(parameter)))
        if bucket and size + bytes_ > BUCKET_BYTES:
            yield bucket
            bucket, size = {}, 0
        bucket[name] = parameter
        size += bytes_
    if bucket:
        yield bucket


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """Return the shape of the whole parameter, split or not."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def set_weight(parameter: Any, whole: Tensor) -> None:
    """Set the float32 copy of a trained parameter to ``whole``."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    if _is_split(parameter):
        safe_set_local_fp32_param(parameter, _own_part(parameter, whole))
    else:
        safe_set_full_fp32_param(parameter, whole)


def set_optimizer_state(parameter: Any, whole: Tensor, kind: str) -> None:
    """Set the optimizer's ``kind`` (``exp_avg``, …) of a trained parameter to ``whole``."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if _is_split(parameter):
        safe_set_local_optimizer_state(parameter, _own_part(parameter, whole), kind)
    else:
        safe_set_full_optimizer_state(parameter, whole, kind)


def _is_split(parameter: Any) -> bool:
    return hasattr(parameter, "ds_id")


def _own_part(parameter: Any, whole: Tensor) -> Tensor:
    """Return this rank's part of ``whole``; the last rank's is padded.

    DeepSpeed's own split fails if the size is not a multiple of the number of ranks.
    """
    size = parameter.ds_tensor.numel()
    begin = size * dist.get_rank()
    part = whole.flatten()[begin : begin + size]
    return pad(part, (0, size - part.numel()))

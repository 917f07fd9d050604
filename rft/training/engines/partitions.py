"""Whole tensors into and out of what ZeRO has split among the ranks. All ranks call these at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad

BUCKET_BYTES = 256 * 2**20
"""Weights that ZeRO-3 has split are put together so many at a time."""


def buckets(parameters: dict[str, nn.Parameter]) -> Iterator[dict[str, nn.Parameter]]:
    """Consecutive parameters of up to ``BUCKET_BYTES`` in float32, one at least."""
    bucket: dict[str, nn.Parameter] = {}
    size = 0
    for name, parameter in parameters.items():
        bytes_ = 4 * int(np.prod(shape_of(parameter)))
        if bucket and size + bytes_ > BUCKET_BYTES:
            yield bucket
            bucket, size = {}, 0
        bucket[name] = parameter
        size += bytes_
    if bucket:
        yield bucket


def shape_of(parameter: Any) -> tuple[int, ...]:
    """Of the whole parameter."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def put_weight(parameter: Any, whole: Tensor) -> None:
    """``whole`` becomes the float32 copy of a parameter that is trained."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    if _is_split(parameter):
        safe_set_local_fp32_param(parameter, _own_part(parameter, whole))
    else:
        safe_set_full_fp32_param(parameter, whole)


def put_state(parameter: Any, whole: Tensor, kind: str) -> None:
    """``whole`` becomes the optimiser's ``kind`` (``exp_avg``, …) of a parameter that is trained."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if _is_split(parameter):
        safe_set_local_optimizer_state(parameter, _own_part(parameter, whole), kind)
    else:
        safe_set_full_optimizer_state(parameter, whole, kind)


def _is_split(parameter: Any) -> bool:
    return hasattr(parameter, "ds_id")


def _own_part(parameter: Any, whole: Tensor) -> Tensor:
    """The last part is padded; DeepSpeed's own cut fails where a size is no multiple of the ranks."""
    size = parameter.ds_tensor.numel()
    begin = size * dist.get_rank()
    part = whole.flatten()[begin : begin + size]
    return pad(part, (0, size - part.numel()))

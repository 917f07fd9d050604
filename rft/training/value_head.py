"""Defines PPO's value head: it estimates the reward to come before each token, from the policy's last hidden states."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rft.errors import PolicyError
from rft.training.batch import MicroBatch


class ValueHead(nn.Module):
    """A linear layer in float32. It starts at 0, so that training begins as REINFORCE without a baseline."""

    def __init__(self, model: Any, *, detach: bool) -> None:
        """Attach to ``model``, a transformers model: a hook keeps what enters its output layer.

        Args:
            detach: the head's gradient does not reach the policy.

        Raises PolicyError if the model has no output layer.
        """
        super().__init__()
        output = model.get_output_embeddings()
        if output is None:
            raise PolicyError("a value head needs a model with an output layer over its vocabulary")
        self.linear = nn.Linear(output.weight.shape[-1], 1, device=output.weight.device, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self._detach = detach
        self._hidden: Tensor | None = None
        output.register_forward_pre_hook(self._keep_hidden)

    def values(self, batch: MicroBatch) -> Tensor:
        """Return the values of the states before the tokens of ``batch``, float32 [N].

        The model must just have been run on ``batch``. Raises RuntimeError if it was not.
        """
        hidden, self._hidden = self._hidden, None
        if hidden is None:
            raise RuntimeError("the policy was not run before its values were asked for")
        if hidden.dim() == 3:
            hidden = hidden.flatten(0, 1).index_select(0, batch.logit_indices)
        states = hidden.float()
        result: Tensor = self.linear(states.detach() if self._detach else states).squeeze(-1)
        return result

    def _keep_hidden(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]


def checksum(tensors: Iterable[Tensor]) -> int:
    """Return the CRC-32 of all bits of ``tensors``, in order."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), crc)
    return crc


def value_loss(values: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """Compute PPO's clipped value loss, ``max((V - R)², (clip(V, V_old ± clip) - R)²) / 2``.

    All tensors are float [N]: values V now, values V_old as the step began, returns R. The clip is that of
    https://arxiv.org/abs/2005.12729, section 3, on https://arxiv.org/abs/1707.06347.
    """
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)

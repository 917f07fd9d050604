"""PPO's value head: one number for the state before each token, from the policy's last hidden layer."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rft.errors import PolicyError
from rft.training.batch import MicroBatch


class ValueHead(nn.Module):
    """Linear, float32, and 0 at the start, so that training begins as REINFORCE without a baseline."""

    def __init__(self, model: Any, *, detach: bool) -> None:
        """Listens to what enters ``model``'s output layer. Raises PolicyError when it has none.

        Args:
            detach: its gradient does not reach the policy.
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
        output.register_forward_pre_hook(self._listen)

    def values(self, batch: MicroBatch) -> Tensor:
        """float32 [N]: of the states before the tokens of ``batch``, which the model has just been run on."""
        hidden, self._hidden = self._hidden, None
        if hidden is None:
            raise RuntimeError("the policy was not run before its values were asked for")
        if hidden.dim() == 3:
            hidden = hidden.flatten(0, 1).index_select(0, batch.picks)
        states = hidden.float()
        result: Tensor = self.linear(states.detach() if self._detach else states).squeeze(-1)
        return result

    def _listen(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]


def checksum(tensors: Iterable[Tensor]) -> int:
    """CRC-32 of all bits, in order."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), crc)
    return crc


def value_loss(values: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """``max((V - R)², (clip(V, V_old ± clip) - R)²) / 2``, all [N]: PPO's clipped value loss
    (https://arxiv.org/abs/2005.12729, section 3, on https://arxiv.org/abs/1707.06347)."""
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)

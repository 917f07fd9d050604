"""Optimizes PPO's value head: small, whole on each rank, with an optimizer of its own.

Its gradient is clipped separately, so that its size never shrinks the policy's gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rft.config import TrainerConfig
from rft.training.objective import Objective


class ValueHeadOptimizer:
    """AdamW over an objective's parameters. Most algorithms have none; then nothing is done."""

    def __init__(self, objective: Objective, config: TrainerConfig) -> None:
        """Call it after :meth:`rft.training.objective.Objective.attach`."""
        self._objective = objective
        self._max_norm = config.max_grad_norm
        self._parameters = objective.parameters()
        self._optimizer = (
            torch.optim.AdamW(
                self._parameters.values(), lr=0.0, betas=config.betas, weight_decay=config.weight_decay, fused=True
            )
            if self._parameters
            else None
        )

    def gradients(self) -> Iterator[Tensor]:
        """Return the gradients of the backward passes so far."""
        return (parameter.grad for parameter in self._parameters.values() if parameter.grad is not None)

    def update(self, learning_rate: float) -> None:
        """Take one update at ``Objective.lr_factor`` times the policy's rate; none if the gradient is not finite."""
        if self._optimizer is None:
            return
        norm = nn.utils.clip_grad_norm_(list(self._parameters.values()), self._max_norm)
        if torch.isfinite(norm):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate * self._objective.lr_factor
            self._optimizer.step()
        self.discard_gradients()

    def discard_gradients(self) -> None:
        """Reset the gradients. An engine calls this when the policy's update was skipped."""
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters' values and the optimizer's state, as a checkpoint keeps them."""
        return self._objective.tensors() | optimizer_state(self._optimizer, self._parameters)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`tensors` returned. Other entries of ``tensors`` are ignored."""
        self._objective.restore(tensors)
        restore_optimizer_state(self._optimizer, self._parameters, tensors)


def optimizer_state(optimizer: torch.optim.Optimizer | None, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return AdamW's state by the names of its parameters: ``<name>/exp_avg``, ``/exp_avg_sq``, ``/step``."""
    if optimizer is None:
        return {}
    return {
        f"{name}/{kind}": value
        for name, parameter in parameters.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer_state(
    optimizer: torch.optim.Optimizer | None, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Restore what :func:`optimizer_state` returned. Other entries of ``tensors`` are ignored."""
    if optimizer is None:
        return
    optimizer.state.clear()
    for name, parameter in parameters.items():
        state = {
            kind: tensors[f"{name}/{kind}"].to(parameter.device, copy=True)
            for kind in ("exp_avg", "exp_avg_sq", "step")
            if f"{name}/{kind}" in tensors
        }
        if state:
            optimizer.state[parameter] = state

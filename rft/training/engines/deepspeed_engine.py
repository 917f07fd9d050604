"""The deepspeed engine: one step over several ranks, the trainer's own process being the first.

The other ranks know nothing of the log. Rank 0 tells them each step's batch, so what is trained and in which order is
decided, recorded and redone in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from rft.config import Config
from rft.training.batch import StepBatch
from rft.training.engines.channel import batch_message
from rft.training.engines.ranks import Ranks, own_environment
from rft.training.engines.shard import Shard, import_deepspeed
from rft.weights.checkpoint import WEIGHTS_FILE
from rft.weights.file import Filling, WeightsFile


class DeepSpeedEngine:
    """See :class:`rft.training.engines.base.Engine`.

    With the same number of ranks and threads a step gives the same bits, on CPUs.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Start the ranks and load the model in ``folder`` in each. Raises PolicyError, EngineError."""
        import_deepspeed()
        trainer = config.trainer
        own_environment(trainer.ranks)
        kept = config.model_dump(mode="json", include={"trainer", "algorithm", "rollout"})
        # Of these sections no more than is needed, for others hold secrets.
        kept |= {"run": {"seed": config.run.seed}, "policy": {"model": config.policy.model}}
        self._ranks = Ranks(trainer.ranks, {"folder": str(folder.absolute()), "config": kept})
        try:
            with self._ranks.together():
                self._shard = Shard(folder, config, 0, trainer.ranks, self._ranks.store)
        except BaseException:
            self.close()
            raise
        self.vocabulary = self._shard.policy.vocabulary
        self.base_digest = self._shard.policy.base_digest

    @property
    def needs_reference(self) -> bool:
        """See :class:`rft.training.engines.base.Engine`."""
        return self._shard.objective.needs_reference

    def set_reference(self, folder: Path) -> str:
        """See :class:`rft.training.engines.base.Engine`."""
        with self._ranks.together():
            self._shard.channel.tell({"do": "reference", "folder": str(folder.absolute())})
            return self._shard.set_reference(folder)

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """See :class:`rft.training.engines.base.Engine`."""
        words, tensors = batch_message(batch)
        with self._ranks.together():
            self._shard.channel.tell({"do": "step", "number": number, "version": version, "batch": words}, tensors)
            return self._shard.step(number, batch, version=version)

    def serialized(self) -> WeightsFile:
        """See :class:`rft.training.engines.base.Engine`."""
        policy = self._shard.policy
        if policy.adapted:
            return policy.serialized(self._tensors(adapters=policy.sends_adapters))
        with self._ranks.together(), Filling(policy.layout()) as filling:
            self._shard.channel.tell({"do": "gather", "adapters": False})
            for name, tensor in self._shard.gathered():
                if name not in policy.tied:
                    filling.put(name, tensor)
            return filling.done()

    def checkpoint_files(self) -> dict[str, bytes | memoryview]:
        """See :class:`rft.training.engines.base.Engine`."""
        policy = self._shard.policy
        if policy.adapted:
            return policy.checkpoint_files(self._tensors(adapters=True))
        return {WEIGHTS_FILE: self.serialized().data}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """See :class:`rft.training.engines.base.Engine`."""
        with self._ranks.together():
            self._shard.channel.tell({"do": "optimizer"})
            return self._shard.optimizer_tensors()

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`rft.training.engines.base.Engine`."""
        with self._ranks.together():
            self._shard.channel.tell({"do": "restore"}, tensors)
            self._shard.restore_optimizer(tensors)

    def check(self) -> None:
        """See :class:`rft.training.engines.base.Engine`."""
        self._ranks.check()

    def close(self) -> None:
        """See :class:`rft.training.engines.base.Engine`."""
        self._ranks.close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _tensors(self, *, adapters: bool) -> dict[str, Tensor]:
        with self._ranks.together():
            self._shard.channel.tell({"do": "gather", "adapters": adapters})
            gathered = self._shard.gathered(adapters=adapters)
            return {name: tensor.detach().to("cpu", copy=True) for name, tensor in gathered}

"""Defines the deepspeed engine: it takes a step over several ranks. The trainer's own process is rank 0.

The other ranks do not know the log. Rank 0 sends them the batch of each step. So one process decides, records and
redoes what is trained, and in which order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from rft.config import Config
from rft.model_files.model_folder import WEIGHTS_FILE
from rft.model_files.weights_file import WeightsFile, WeightsFileBuilder
from rft.training.batch import StepBatch
from rft.training.engines.channel import encode_batch
from rft.training.engines.ranks import RankProcesses, set_own_environment
from rft.training.engines.shard import Shard, import_deepspeed


class DeepSpeedEngine:
    """See :class:`rft.training.engines.base.Engine`.

    On CPUs, the same number of ranks and threads gives the same weights, bit for bit.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Start the ranks and load the model in ``folder`` in each of them. Raises PolicyError, EngineError."""
        import_deepspeed()
        trainer = config.trainer
        set_own_environment(trainer.ranks)
        sent = config.model_dump(mode="json", include={"trainer", "algorithm", "rollout"})
        # The ranks get only what they need of the configuration, because it may hold secrets.
        sent |= {"run": {"seed": config.run.seed}, "policy": {"model": config.policy.model}}
        self._ranks = RankProcesses(trainer.ranks, {"folder": str(folder.absolute()), "config": sent})
        try:
            with self._ranks.collective():
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
        with self._ranks.collective():
            self._shard.channel.broadcast({"do": "reference", "folder": str(folder.absolute())})
            return self._shard.set_reference(folder)

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """See :class:`rft.training.engines.base.Engine`."""
        message, tensors = encode_batch(batch)
        with self._ranks.collective():
            self._shard.channel.broadcast(
                {"do": "step", "number": number, "version": version, "batch": message}, tensors
            )
            return self._shard.step(number, batch, version=version)

    def serialized(self) -> WeightsFile:
        """See :class:`rft.training.engines.base.Engine`."""
        policy = self._shard.policy
        if policy.adapted:
            return policy.serialized(self._tensors(adapters=policy.sends_adapters))
        with self._ranks.collective(), WeightsFileBuilder(policy.layout()) as filling:
            self._shard.channel.broadcast({"do": "gather", "adapters": False})
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
        with self._ranks.collective():
            self._shard.channel.broadcast({"do": "optimizer"})
            return self._shard.optimizer_tensors()

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`rft.training.engines.base.Engine`."""
        with self._ranks.collective():
            self._shard.channel.broadcast({"do": "restore"}, tensors)
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
        with self._ranks.collective():
            self._shard.channel.broadcast({"do": "gather", "adapters": adapters})
            gathered = self._shard.gathered(adapters=adapters)
            return {name: tensor.detach().to("cpu", copy=True) for name, tensor in gathered}

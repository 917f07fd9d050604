"""The weights in training, and all that says which weights they are: step, version, digest, progress in the log."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from rft.algorithms.presets import find
from rft.config import Config, engine_fields
from rft.errors import CheckpointError
from rft.training.batch import StepBatch
from rft.training.checkpoint import Checkpoint, CheckpointState, restore_rng, write_checkpoint
from rft.training.engines.opening import open_engine
from rft.training.progress import LogProgress
from rft.training.sample import Sample, Wanted
from rft.weights.adapters import ADAPTER_CONFIG, Adapter, base_model_folder, beside_adapters, is_described
from rft.weights.checkpoint import companion_files
from rft.weights.file import WeightsFile
from schemas.events import TrainingStep


class Learner:
    """Takes steps and keeps the account of them. Knows the log only as offsets."""

    def __init__(self, config: Config, checkpoint: Checkpoint | None) -> None:
        """Start from ``checkpoint``, or from the model that the configuration names.

        Raises PolicyError or WeightsError when the model cannot be read, CheckpointError when the checkpoint
        is damaged or the reference model is not the one that training started from.
        """
        self.config = config
        initial = Path(config.policy.model)
        folder = checkpoint.folder if checkpoint else initial
        # A checkpoint of adapters holds none.
        self.companions = companion_files_of(initial if config.trainer.lora.rank else folder)
        self.engine = open_engine(folder, config)
        self.step = 0
        self.version = 0
        self.version_step = 0
        weights = self.engine.serialized()
        self.digest = weights.sha256
        self.initial_digest = self.engine.base_digest or weights.sha256
        if adapter := Adapter.of_metadata(weights.metadata):
            self.companions = adapter.beside(self.companions, str(initial.absolute()))
        self.recorded_digest = self.digest
        """What the redo log says of the newest step; see ``trainer.redo_tolerance``."""
        self.last_record: tuple[int, int] | None = None
        self.progress: LogProgress | None = None
        self.checkpointed_step = -1
        self.pool_places: list[tuple[int, int, int]] = []
        """Of the checkpoint: what was trained and may be trained again, as :attr:`rft.training.pool.Pool.places`."""
        try:
            self._become(checkpoint, initial)
        except BaseException:
            self.engine.close()
            raise

    @property
    def wanted(self) -> Wanted:
        """Which experiences this trainer can use."""
        trainer = self.config.trainer
        kinds = find(self.config.algorithm.name).kinds
        return Wanted(self.engine.vocabulary, trainer.model_key, trainer.min_reward, kinds)

    def learn(self, samples: Sequence[Sample]) -> tuple[dict[str, float], WeightsFile]:
        """Take the next step on ``samples``, whose payloads must be there; metrics and the new weights' file."""
        version = self.version if self.version_step == self.step else None
        metrics = self.engine.step(self.step + 1, StepBatch.of(samples), version=version)
        self.step += 1
        weights = self.engine.serialized()
        self.digest = weights.sha256
        return metrics, weights

    def recorded(self, record: TrainingStep, place: tuple[int, int]) -> None:
        """``record`` stands on the log at ``place``: from now on it counts."""
        assert self.progress is not None
        self.progress.apply(record)
        self.last_record = place
        self.recorded_digest = record.digest or self.recorded_digest
        if record.next_version > record.version:
            self.version, self.version_step = record.next_version, record.step

    def checkpoint(self, pool: Sequence[tuple[int, int, int]] = ()) -> Path:
        """Write a checkpoint of this very state; ``pool`` is what :attr:`rft.training.pool.Pool.places` says.

        Raises CheckpointError; then the older one stays the newest."""
        assert self.progress is not None
        state = CheckpointState(
            model_key=self.config.trainer.model_key,
            step=self.step,
            version=self.version,
            version_step=self.version_step,
            digest=self.digest,
            initial_digest=self.initial_digest,
            recorded_digest=self.recorded_digest if self.recorded_digest != self.digest else "",
            last_record=self.last_record,
            progress=self.progress.to_json() | {"pool": list(pool)},
            made_with=made_with(self.config),
        )
        weights = self.engine.checkpoint_files()
        folder = write_checkpoint(
            self.config.run.path,
            state,
            weights=weights,
            companions=beside_adapters(self.companions) if ADAPTER_CONFIG in weights else self.companions,
            optimizer=self.engine.optimizer_tensors(),
            keep=self.config.trainer.keep_checkpoints,
            keep_every=self.config.trainer.keep_every,
        )
        self.checkpointed_step = self.step
        return folder

    def close(self) -> None:
        """End the engine's other processes."""
        self.engine.close()

    def _become(self, checkpoint: Checkpoint | None, initial: Path) -> None:
        if checkpoint:
            self._restore(checkpoint)
        if self.engine.needs_reference and self.engine.set_reference(initial) != self.initial_digest:
            raise CheckpointError(
                f"policy.model ({initial.absolute()}) is not the model that this run started from, so the "
                "algorithm would compare with other weights; put the original back or start a new run"
            )

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        if self.engine.base_digest not in (None, state.initial_digest):
            raise CheckpointError(
                f"policy.model ({Path(self.config.policy.model).absolute()}) is not the model that the adapters in "
                f"{checkpoint.folder} were trained on; put the original back or start a new run"
            )
        content = self.config.weights.content
        if (before := state.made_with.get("content", content)) != content:
            raise CheckpointError(
                f"weights.content was '{before}' when {checkpoint.folder} was written, and is '{content}' now: it "
                "stays the same throughout a run. Set it back or start a new run"
            )
        if state.digest != self.digest:
            raise CheckpointError(f"{checkpoint.folder}: its weights do not have the digest that its state names")
        self.engine.restore_optimizer(checkpoint.optimizer)
        restore_rng(checkpoint.rng)
        self.step = self.checkpointed_step = state.step
        self.version, self.version_step = state.version, state.version_step
        self.initial_digest = state.initial_digest
        self.recorded_digest = state.recorded_digest or state.digest
        self.last_record = (state.last_record[0], state.last_record[1]) if state.last_record else None
        try:
            self.progress = LogProgress.from_json(state.progress)
            self.pool_places = [(p, offset, uses) for p, offset, uses in state.progress.get("pool", ())]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{checkpoint.folder}: damaged positions: {error}") from error


def companion_files_of(folder: Path) -> dict[str, bytes]:
    """A model folder's configuration and tokenizer; a missing folder is the engine's to report, with advice."""
    return companion_files(base_model_folder(folder)) if is_described(folder) else {}


def made_with(config: Config) -> dict[str, Any]:
    """What the bits of a step hang on beside its events."""
    trainer = config.trainer.model_dump(mode="json")
    kept = (
        "learning_rate", "warmup_steps", "betas", "weight_decay", "max_grad_norm", "micro_batch_tokens", "epochs",
        "minibatches",
    )  # fmt: skip
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "algorithm": config.algorithm.model_dump(mode="json"),
        **{name: trainer[name] for name in (*kept, "threads", "device", "dtype")},
        **engine_fields(config.trainer),
        "content": config.weights.content,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What :func:`made_with` says otherwise now, for people."""
    return [f"{name} was {before[name]}, is {now.get(name)}" for name in before if before[name] != now.get(name)]

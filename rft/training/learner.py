"""Takes gradient steps and keeps account of them: step, weight version, digests and progress in the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rft.algorithms.presets import find_preset
from rft.config import Config
from rft.errors import CheckpointError
from rft.hub.revisions import recorded_revisions
from rft.log.coordinates import LogPosition, ReusePosition
from rft.lora.adapter import Adapter, adapter_companions, base_model_folder
from rft.model_files.model_folder import ADAPTER_CONFIG, companion_files, is_model_folder
from rft.model_files.weights_file import WeightsFile
from rft.training.batch import StepBatch
from rft.training.checkpoint import Checkpoint, CheckpointState, restore_rng, write_checkpoint
from rft.training.engines.open import open_engine
from rft.training.environment import training_environment
from rft.training.progress import LogProgress
from rft.training.reference import ReferenceResets
from rft.training.reward_weights import reward_weights
from rft.training.sample import Sample, SampleFilter
from schemas.events import TrainingStep


class Learner:
    """Holds the weights in training and all that identifies them. Knows the log only as offsets."""

    def __init__(
        self,
        config: Config,
        checkpoint: Checkpoint | None,
        progress: LogProgress,
        *,
        publishes_versions: bool = True,
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        """Start from ``checkpoint``, or from the model that the configuration names.

        Args:
            checkpoint: this trainer's newest; None for a new run.
            progress: how far that state is in the log. The learner moves it on with each record that it applies.
            publishes_versions: False if the weights never become weight versions, as in an offline run.
            topic_ids: ids of the topics that the offsets are of, for checkpoints.

        Raises:
            PolicyError, WeightsError: The model cannot be read.
            CheckpointError: The checkpoint is damaged or contradicts the configuration, or the reference model is not
                the model that training started from.
        """
        self.config = config
        self.progress = progress
        initial = Path(config.policy.model)
        folder = checkpoint.folder if checkpoint else initial
        # A checkpoint of adapters holds no companions.
        self.companions = _read_companions(initial if config.trainer.lora.rank else folder)
        """Configuration and tokenizer files of the model, by name, as they belong to its weights."""
        self.engine = open_engine(folder, config)
        weights = self.engine.serialized()
        if adapter := Adapter.from_metadata(weights.metadata):
            self.companions = adapter.companions(self.companions, str(initial.absolute()))
        self.step = 0
        self.version = 0
        """Newest weight version; its announcement may be on its way."""
        self.version_step = 0 if publishes_versions else -1
        """Step whose weights ``version`` is; -1 if they are no version."""
        self.digest = weights.sha256
        """sha256 of the weights as :meth:`rft.training.engines.base.Engine.serialized` returns them."""
        self.initial_digest = self.engine.base_digest or weights.sha256
        self.recorded_digest = self.digest
        """sha256 that the redo log holds for the newest step; see ``trainer.redo_tolerance``."""
        self.last_record: LogPosition | None = None
        self.checkpointed_step = -1
        self._topic_ids = dict(topic_ids or {})
        self._weight_of = reward_weights(config.processor)
        folder = config.run.path / "reference" / config.trainer.model_key
        self._resets = ReferenceResets(self.engine, config.algorithm.reference_reset, folder)
        try:
            if checkpoint:
                self._restore(checkpoint)
            if not (checkpoint and self.engine.needs_reference and self._resets.restore(checkpoint.folder)):
                self._load_reference(initial)
        except BaseException:
            self.engine.close()
            raise

    @property
    def sample_filter(self) -> SampleFilter:
        """Which experiences this trainer can use."""
        trainer = self.config.trainer
        kinds = find_preset(self.config.algorithm.name).kinds
        return SampleFilter(self.engine.vocabulary, trainer.model_key, trainer.min_reward, kinds)

    def learn(self, samples: Sequence[Sample]) -> tuple[dict[str, float], WeightsFile]:
        """Take the next step on ``samples``, whose payloads must be there.

        Returns the step's metrics and the new weights. Raises EngineError when a rank has failed, WeightsError when the
        disk cannot hold a new reference.
        """
        version = self.version if self.version_step == self.step else None
        metrics = self.engine.step(self.step + 1, StepBatch.from_samples(samples, self._weight_of), version=version)
        self.step += 1
        weights = self.engine.serialized()
        self.digest = weights.sha256
        self._resets.after_step(self.step, weights, self.companions)
        return metrics, weights

    def apply_record(self, record: TrainingStep, position: LogPosition) -> None:
        """Note that ``record``, which says what this learner has done, stands in ``steps`` at ``position``."""
        self.progress.apply(record)
        self.last_record = position
        self.recorded_digest = record.digest or self.recorded_digest
        if record.next_version > record.version:
            self.version, self.version_step = record.next_version, record.step

    def checkpoint(self, reuse_positions: Sequence[ReusePosition] = ()) -> Path:
        """Write a checkpoint of the present state and return its folder.

        ``reuse_positions`` are those of :attr:`rft.training.reuse_pool.ReusePool.positions`. Raises CheckpointError;
        the newest checkpoint then stays the one before.
        """
        state = CheckpointState(
            model_key=self.config.trainer.model_key,
            step=self.step,
            version=self.version,
            version_step=self.version_step,
            digest=self.digest,
            initial_digest=self.initial_digest,
            recorded_digest=self.recorded_digest if self.recorded_digest != self.digest else "",
            last_record=self.last_record,
            progress=self.progress.to_json() | {"pool": list(reuse_positions)},
            environment=training_environment(self.config),
            topic_ids=self._topic_ids,
            hub_revisions=recorded_revisions(self.config.run.path),
        )
        weights = self.engine.checkpoint_files()
        folder = write_checkpoint(
            self.config.run.path,
            state,
            weights={**weights, **self._resets.checkpoint_files()},
            companions=adapter_companions(self.companions) if ADAPTER_CONFIG in weights else self.companions,
            optimizer=self.engine.optimizer_tensors(),
            keep=self.config.trainer.keep_checkpoints,
            keep_every=self.config.trainer.keep_every,
        )
        self.checkpointed_step = self.step
        self._resets.checkpointed(folder)
        return folder

    def close(self) -> None:
        """End the engine's other processes."""
        self.engine.close()

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self._check(checkpoint)
        self.engine.restore_optimizer(checkpoint.optimizer)
        restore_rng(checkpoint.rng)
        self.step = self.checkpointed_step = state.step
        self.version, self.version_step = state.version, state.version_step
        self.initial_digest = state.initial_digest
        self.recorded_digest = state.recorded_digest or state.digest
        self.last_record = state.last_record

    def _check(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        if self.engine.base_digest not in (None, state.initial_digest):
            raise CheckpointError(
                f"policy.model ({Path(self.config.policy.model).absolute()}) is not the model that the adapters in "
                f"{checkpoint.folder} were trained on. Put the original back or start a new run"
            )
        content = self.config.weights.content
        if (before := state.environment.get("content", content)) != content:
            raise CheckpointError(
                f"weights.content was '{before}' when {checkpoint.folder} was written and is '{content}' now, but it "
                "must not change within a run. Set it back or start a new run"
            )
        if state.digest != self.digest:
            raise CheckpointError(f"{checkpoint.folder}: its weights do not have the digest that its state names")

    def _load_reference(self, initial: Path) -> None:
        if self.engine.needs_reference and self.engine.set_reference(initial) != self.initial_digest:
            raise CheckpointError(
                f"policy.model ({initial.absolute()}) is not the model that this run started from, so the "
                "algorithm would compare with other weights. Put the original back or start a new run"
            )


def _read_companions(folder: Path) -> dict[str, bytes]:
    # If the folder is missing, the engine raises an error with advice.
    return companion_files(base_model_folder(folder)) if is_model_folder(folder) else {}

"""The whole tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from rft.config.algorithm import AlgorithmConfig
from rft.config.buffering import BufferConfig
from rft.config.data import ImportConfig
from rft.config.evaluating import MAIN_SET, EvalConfig, EvalSet, EvalSetConfig, powers_of_two
from rft.config.exploring import RolloutConfig, TasksConfig
from rft.config.learning import TrainerConfig, TrainerOverrides
from rft.config.log import ArchiveConfig, BrokerConfig, LogConfig, RegistryConfig
from rft.config.policy import PolicyConfig
from rft.config.processing import ProcessorConfig
from rft.config.section import Name, Section
from rft.config.staging import StageConfig, merged
from rft.config.tracking import TrackersConfig
from rft.config.weights import WeightsConfig
from rft.errors import ConfigError


class RunConfig(Section):
    name: Name = "run"
    """Name of the run; its folder is ``folder/name``."""
    folder: Path = Path("runs")
    """Where run folders are made."""
    seed: int = 0
    """Seeds weights, tasks and sampling."""
    mode: Literal["online", "train", "explore", "eval"] = "online"
    """``online``: explore and train. ``train``: no tasks are issued; the trainer learns from what is imported or
    published by others. ``explore``: the tasks of ``trainer.steps`` steps are rolled out by ``policy.model`` and
    scored, and nothing is trained. ``eval``: ``policy.model`` answers the held-out tasks, no more."""

    @property
    def path(self) -> Path:
        """The run's own folder, absolute."""
        return (self.folder / self.name).absolute()


class LauncherConfig(Section):
    explorers: int = Field(default=1, ge=1, le=256)
    """Explorer processes to run."""
    processors: int = Field(default=1, ge=1, le=256)
    """Processor processes to run."""
    restart_limit: int = Field(default=5, ge=0)
    """Restarts of one role within ``restart_window_s`` before the run fails."""
    restart_window_s: float = Field(default=300.0, gt=0)
    """See ``restart_limit``."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Wait before the first restart; doubled each time, to at most 30 s."""
    stop_timeout_s: float = Field(default=30.0, gt=0)
    """How long a role may take to stop after SIGTERM before it is killed."""


class Config(Section):
    """The whole tree."""

    run: RunConfig = RunConfig()
    broker: BrokerConfig = BrokerConfig()
    log: LogConfig = LogConfig()
    registry: RegistryConfig = RegistryConfig()
    imports: list[ImportConfig] = []
    """Files that are published to the log: by `rft import`, and by `rft run` while it goes on."""
    tasks: TasksConfig = TasksConfig()
    rollout: RolloutConfig = RolloutConfig()
    policy: PolicyConfig = PolicyConfig()
    processor: ProcessorConfig = ProcessorConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    trainer: TrainerConfig = TrainerConfig()
    buffer: BufferConfig = BufferConfig()
    trainers: dict[Name, TrainerOverrides] = {}
    """Further trainers that read the same ``ready``, by identity: A/B or shadow training, SFT beside RL. Each has its
    own steps, checkpoints and weight versions."""
    weights: WeightsConfig = WeightsConfig()
    stages: list[StageConfig] = []
    """Runs one after the other, each from the last one's weights and with settings of its own."""
    eval: EvalConfig = EvalConfig()
    archive: ArchiveConfig = ArchiveConfig()
    trackers: TrackersConfig = TrackersConfig()
    launcher: LauncherConfig = LauncherConfig()

    @model_validator(mode="before")
    @classmethod
    def _dynamic_sampling(cls, values: Any) -> Any:
        """DAPO asks for groups until enough of them differ in their rewards: the processor leaves the others out."""
        if not isinstance(values, dict) or not isinstance(algorithm := values.get("algorithm"), dict):
            return values
        processor = values.get("processor", {})
        if algorithm.get("name") != "dapo" or not isinstance(processor, dict) or "drop_uniform_groups" in processor:
            return values
        return {**values, "processor": {**processor, "drop_uniform_groups": True}}

    @model_validator(mode="after")
    def _imports_differ(self) -> Config:
        names = [source.name for source in self.imports]
        if len(set(names)) < len(names):
            raise ValueError("[[imports]]: two have the same name")
        return self

    @model_validator(mode="after")
    def _identities_differ(self) -> Config:
        if self.trainer.model_key in self.trainers:
            raise ValueError(
                f"[trainers.{self.trainer.model_key}]: '{self.trainer.model_key}' is the main trainer's identity"
            )
        return self

    @model_validator(mode="after")
    def _adapters_are_trained(self) -> Config:
        trains = self.run.mode in ("online", "train")
        if self.weights.content == "adapters" and trains and not self.trainer.lora.rank and not self.stages:
            raise ValueError(
                'weights.content = "adapters", but none are trained: set trainer.lora.rank, or content = "model"'
            )
        return self

    @model_validator(mode="after")
    def _sets_are_sound(self) -> Config:
        if MAIN_SET in self.eval.sets:
            raise ValueError(f"[eval.sets.{MAIN_SET}]: '{MAIN_SET}' is the set of [eval] itself")
        for name in self.eval.sets:
            self._eval_set(name)
        if self.eval.tasks:
            self._eval_set(MAIN_SET)
        return self

    @property
    def eval_sets(self) -> dict[str, EvalSet]:
        """All held-out sets by name: the one of ``[eval]`` first, if ``eval.tasks`` is not 0."""
        names = [MAIN_SET, *self.eval.sets] if self.eval.tasks else self.eval.sets
        return {name: self._eval_set(name) for name in names}

    def _eval_set(self, name: str) -> EvalSet:
        tasks, shared = self.tasks, self.eval
        if name == MAIN_SET:
            own = EvalSetConfig(tasks=max(1, shared.tasks))
            source = tasks.eval_source or tasks.source
            options = tasks.options if tasks.eval_source is None else tasks.eval_options
        else:
            own = shared.sets[name]
            source = own.source or tasks.source
            options = own.options if own.options is not None else {} if own.source else tasks.options

        def chosen(field: str) -> Any:
            value = getattr(own, field)
            return getattr(shared, field) if value is None else value

        samples = chosen("samples")
        try:
            return EvalSet(
                name=name,
                source=source,
                options=options,
                prompt_template=own.prompt_template or tasks.prompt_template,
                tasks=own.tasks,
                interim_tasks=min(own.tasks, chosen("interim_tasks")),
                every_versions=chosen("every_versions"),
                samples=samples,
                temperature=chosen("temperature"),
                top_p=chosen("top_p"),
                max_tokens=chosen("max_tokens") or self.rollout.max_tokens,
                pass_at=tuple(sorted(set(chosen("pass_at") or powers_of_two(samples)))),
                difficulty=chosen("difficulty"),
            )
        except ValidationError as error:
            where = "[eval]" if name == MAIN_SET else f"[eval.sets.{name}]"
            raise ValueError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None

    def of_trainer(self, identity: str) -> Config:
        """The configuration as the trainer of that identity sees it.

        Raises ConfigError for an unknown identity, pydantic's ValidationError for wrong overrides.
        """
        main = self.trainer.model_key
        if identity == main:
            return self
        if identity not in self.trainers:
            known = ", ".join([main, *self.trainers])
            raise ConfigError(f"there is no trainer '{identity}'; the configuration has {known} ([trainers.<key>])")
        values = self.model_dump(exclude={"trainers"})
        for section, fields in self.trainers[identity].model_dump().items():
            values[section] |= fields
        values["trainer"] |= {"model_key": identity, "follows": main}
        return Config.model_validate(values)

    @model_validator(mode="after")
    def _reuse_is_paced(self) -> Config:
        paces = self.run.mode == "online" and self.trainer.follows is None
        if paces and self.buffer.reuse > 1 and not self.buffer.mix:
            raise ValueError(
                "buffer.reuse > 1 needs buffer.mix where tasks are issued: say how much of a step is replayed, e.g. "
                "mix = { rollout = 0.5, replay = 0.5 }"
            )
        return self

    @model_validator(mode="after")
    def _stages_differ(self) -> Config:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("[[stages]]: two have the same name")
        return self

    def of_stage(self, index: int, model: str | None = None) -> Config:
        """The configuration of one stage: a run in ``<run>/stages/<number>-<name>/``.

        Args:
            index: From 0.
            model: The last stage's weights; the stage's own ``policy.model`` comes before.

        Raises pydantic's ValidationError for wrong overrides.
        """
        stage = self.stages[index]
        values = self.model_dump(exclude={"stages"})
        if model is not None:
            values["policy"]["model"] = model
        values = merged(values, stage.overrides)
        values["run"] |= {"folder": self.run.path / "stages", "name": f"{index + 1}-{stage.name}"}
        if self.broker.kind == "external":
            values["log"]["namespace"] = f"{self.log.namespace}.{stage.name}"
        return Config.model_validate(values)

    @property
    def archiving(self) -> bool:
        """Whether `rft run` starts an archiver."""
        enabled = self.archive.enabled
        return self.broker.kind == "embedded" if enabled is None else enabled

    @property
    def archive_url(self) -> str:
        """Where the archive is: a folder or an fsspec URL."""
        return self.archive.url or str(self.run.path / "archive")

    @property
    def pacing_bound(self) -> int:
        """Groups that may be issued and not yet retired: (max_staleness + 1) · sync_interval · new groups of a step."""
        trainer = self.trainer
        return (trainer.max_staleness + 1) * trainer.sync_interval * self.new_groups_per_step

    @property
    def new_groups_per_step(self) -> int:
        """Groups of a step that explorers must have rolled out for it."""
        shares = self.buffer.shares(self.trainer.groups_per_step)
        return shares.get("rollout", 0) if shares else self.trainer.groups_per_step

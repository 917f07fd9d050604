"""The whole tree, and the configurations of one stage and of one further trainer that follow from it.

A section remembers which of its fields were set. Stages and further trainers override what was set, never a default,
so each of them has its own defaults where these depend on another field (see ``_apply_preset``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError, model_validator

from rft.config.algorithm import AlgorithmConfig
from rft.config.archive import ArchiveConfig
from rft.config.broker import BrokerConfig
from rft.config.buffer import BufferConfig
from rft.config.eval import MAIN_SET, EvalConfig, EvalSet, eval_set
from rft.config.gateway import GatewayConfig
from rft.config.imports import ImportConfig
from rft.config.launcher import LauncherConfig
from rft.config.log import LogConfig
from rft.config.policy import PolicyConfig
from rft.config.processor import ProcessorConfig, RewardTerm
from rft.config.registry import RegistryConfig
from rft.config.rewarders import RewarderConfig
from rft.config.rollout import RolloutConfig
from rft.config.run import RunConfig
from rft.config.section import Name, Section, with_default
from rft.config.stages import StageConfig, merged, with_own_revision
from rft.config.tasks import TasksConfig
from rft.config.telemetry import TelemetryConfig
from rft.config.trackers import TrackersConfig
from rft.config.trainer import TrainerConfig
from rft.config.trainers import TrainerOverrides
from rft.config.weights import WeightsConfig
from rft.errors import ConfigError


class Config(Section):
    """The whole tree of sections."""

    run: RunConfig = RunConfig()
    broker: BrokerConfig = BrokerConfig()
    log: LogConfig = LogConfig()
    registry: RegistryConfig = RegistryConfig()
    imports: list[ImportConfig] = []
    """Files that are published to the log, by `rft import` and during `rft run`."""
    tasks: TasksConfig = TasksConfig()
    rollout: RolloutConfig = RolloutConfig()
    gateway: GatewayConfig = GatewayConfig()
    policy: PolicyConfig = PolicyConfig()
    processor: ProcessorConfig = ProcessorConfig()
    rewarders: dict[Name, RewarderConfig] = {}
    """Roles that read experiences and publish rewards, by the name of the source: it must be in
    ``processor.external.required`` or ``optional``."""
    algorithm: AlgorithmConfig = AlgorithmConfig()
    trainer: TrainerConfig = TrainerConfig()
    buffer: BufferConfig = BufferConfig()
    trainers: dict[Name, TrainerOverrides] = {}
    """Further trainers that read the same ``ready``, by identity: for A/B or shadow training, or SFT in parallel to RL.
    Each has its own steps, checkpoints and weight versions."""
    weights: WeightsConfig = WeightsConfig()
    stages: list[StageConfig] = []
    """Runs one after the other, each from the weights of the one before and with its own settings."""
    eval: EvalConfig = EvalConfig()
    archive: ArchiveConfig = ArchiveConfig()
    trackers: TrackersConfig = TrackersConfig()
    launcher: LauncherConfig = LauncherConfig()
    telemetry: TelemetryConfig = TelemetryConfig()

    @model_validator(mode="after")
    def _apply_preset(self) -> Config:
        """Turn on DAPO's dynamic sampling unless it is set: the processor drops groups whose rewards are all equal."""
        if self.algorithm.name == "dapo" and "drop_uniform_groups" not in self.processor.model_fields_set:
            processor = with_default(self.processor, "drop_uniform_groups", True)
            object.__setattr__(self, "processor", processor)  # a section is frozen, and this is its construction
        return self

    @model_validator(mode="after")
    def _reward_of_source(self) -> Config:
        """Score tasks of reasoning-gym by their dataset's scorer, unless rewards are set."""
        named = "source" in self.tasks.model_fields_set and self.tasks.source.startswith("reasoning_gym:")
        if named and "rewards" not in self.processor.model_fields_set:
            term = RewardTerm(function="reasoning_gym", options=self.tasks.options)
            object.__setattr__(self, "processor", with_default(self.processor, "rewards", [term]))
        return self

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
                'weights.content = "adapters", but no adapters are trained: set trainer.lora.rank, or content = "model"'
            )
        return self

    @model_validator(mode="after")
    def _served_sessions_are_trained(self) -> Config:
        if self.gateway.serve and self.run.mode not in ("online", "train") and not self.stages:
            raise ValueError(
                f"gateway.serve has no meaning with run.mode = '{self.run.mode}': set mode = 'train' to learn from "
                "agents that come by themselves, or 'online' to learn from tasks, too"
            )
        return self

    @model_validator(mode="after")
    def _reference_can_be_reset(self) -> Config:
        if self.algorithm.reference_reset and self.trainer.lora.rank:
            raise ValueError(
                "algorithm.reference_reset does not work with trainer.lora, whose reference is the base model without "
                "adapters: set reference_reset = 0, or train the whole model"
            )
        return self

    @model_validator(mode="after")
    def _sets_are_sound(self) -> Config:
        if MAIN_SET in self.eval.sets:
            raise ValueError(f"[eval.sets.{MAIN_SET}]: '{MAIN_SET}' is the set of [eval] itself")
        for name in (MAIN_SET, *self.eval.sets) if self.eval.tasks else self.eval.sets:
            try:
                self._eval_set(name)
            except ValidationError as error:
                where = "[eval]" if name == MAIN_SET else f"[eval.sets.{name}]"
                raise ValueError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self

    @property
    def eval_sets(self) -> dict[str, EvalSet]:
        """All held-out sets by name. If ``eval.tasks`` is not 0, the set of ``[eval]`` is the first."""
        names = [MAIN_SET, *self.eval.sets] if self.eval.tasks else self.eval.sets
        return {name: self._eval_set(name) for name in names}

    def _eval_set(self, name: str) -> EvalSet:
        return eval_set(name, self.eval, self.tasks, self.rollout)

    def of_trainer(self, identity: str) -> Config:
        """Return the configuration as the trainer with that identity sees it: its fields override what was set.

        Raises ConfigError for an unknown identity, pydantic's ValidationError for wrong overrides.
        """
        main = self.trainer.model_key
        if identity == main:
            return self
        if identity not in self.trainers:
            known = ", ".join([main, *self.trainers])
            raise ConfigError(f"there is no trainer '{identity}'; the configuration has {known} ([trainers.<key>])")
        values = self.model_dump(exclude={"trainers"}, exclude_unset=True)
        for section, fields in self.trainers[identity].model_dump(exclude_unset=True).items():
            fields = with_own_revision(section, fields)
            values[section] = _overridden(getattr(self, section), values.get(section, {}), fields)
        values["trainer"] = values.get("trainer", {}) | {"model_key": identity, "follows": main}
        return Config.model_validate(values)

    @model_validator(mode="after")
    def _reuse_is_paced(self) -> Config:
        paces = self.run.mode == "online" and self.trainer.follows is None
        if paces and self.buffer.reuse > 1 and not self.buffer.mix:
            raise ValueError(
                "buffer.reuse > 1 needs buffer.mix if tasks are issued. Set which share of a step is replayed, e.g. "
                "mix = { rollout = 0.5, replay = 0.5 }"
            )
        return self

    @model_validator(mode="after")
    def _held_groups_come(self) -> Config:
        if self.buffer.too_stale == "hold" and self.processor.external.frees_slots:
            raise ValueError(
                "buffer.too_stale = 'hold' contradicts processor.external.pacing = 'free': steps would wait for the "
                "groups that wait for their rewards. Set pacing = 'hold', or too_stale = 'drop' or 'keep'"
            )
        return self

    @model_validator(mode="after")
    def _spare_rollouts_are_cancelled(self) -> Config:
        if self.rollout.spare and self.processor.external.required:
            raise ValueError(
                "rollout.spare does not work with processor.external.required: a group that waits for external rewards "
                "waits for all of its rollouts. Set rollout.spare = 0"
            )
        return self

    @model_validator(mode="after")
    def _group_has_static_members(self) -> Config:
        if self.rollout.static_membership and self.broker.kind == "embedded":
            raise ValueError(
                "rollout.static_membership: the embedded broker knows no static members. Set broker.kind to 'kafka' or "
                "'external', or static_membership = false"
            )
        return self

    @model_validator(mode="after")
    def _stages_differ(self) -> Config:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("[[stages]]: two have the same name")
        return self

    @model_validator(mode="after")
    def _topics_can_be_created(self) -> Config:
        if not self.log.manage_topics and self.broker.kind != "external":
            raise ValueError(
                f"log.manage_topics = false, but the broker is our own (broker.kind = '{self.broker.kind}') and starts "
                "without topics: remove it, or set broker.kind = 'external'"
            )
        return self

    @model_validator(mode="after")
    def _stages_have_topics(self) -> Config:
        if self.stages and self.log.topics and self.broker.kind == "external":
            raise ValueError(
                "log.topics names each topic once, but on a cluster each of the [[stages]] has topics of its own "
                "(<namespace>.<stage>.<entity>.v1): remove log.topics, or run each stage by itself"
            )
        return self

    def of_stage(self, index: int, model: str | None = None) -> Config:
        """Return the configuration of one stage, whose values override what was set.

        The stage is a run in ``<run>/stages/<number>-<name>/``.

        Args:
            index: From 0.
            model: Weights of the stage before; the stage's own ``policy.model`` takes precedence.

        Raises pydantic's ValidationError for wrong overrides.
        """
        stage = self.stages[index]
        values = self.model_dump(exclude={"stages"}, exclude_unset=True)
        if model is not None:
            values = merged(values, {"policy": {"model": model, "revision": None}})
        own: dict[str, Any] = {"run": {"folder": self.run.path / "stages", "name": f"{index + 1}-{stage.name}"}}
        if self.broker.kind == "external":
            own["log"] = {"namespace": f"{self.log.namespace}.{stage.name}"}
        overrides = {
            section: with_own_revision(section, fields) if isinstance(fields, Mapping) else fields
            for section, fields in stage.overrides.items()
        }
        values = merged(merged(values, overrides), own)
        return Config.model_validate(values)

    @model_validator(mode="after")
    def _rewards_are_used(self) -> Config:
        external = self.processor.external
        for name, rewarder in self.rewarders.items():
            if name not in (*external.required, *external.optional):
                raise ValueError(
                    f"[rewarders.{name}]: its rewards would not be used: add '{name}' to processor.external.required, "
                    "or to optional"
                )
            if 0 < self.launcher.stall_s <= rewarder.deadline_s:
                raise ValueError(
                    f"[rewarders.{name}]: deadline_s = {rewarder.deadline_s:g} must be below launcher.stall_s = "
                    f"{self.launcher.stall_s:g}: one slow try would count as a stall"
                )
            if rewarder.deadline_s > external.deadline_s:
                raise ValueError(
                    f"[rewarders.{name}]: deadline_s = {rewarder.deadline_s:g} is longer than groups wait for rewards "
                    f"(processor.external.deadline_s = {external.deadline_s:g})"
                )
        return self

    def of_rewarder(self, name: str | None) -> Config:
        """Return the configuration with only one of its rewarders; without ``name``, with the only one there is.

        Raises ConfigError for an unknown name, and if there are several and none is named.
        """
        known = ", ".join(self.rewarders)
        if not known:
            raise ConfigError("there is no rewarder: add a section [rewarders.<name>], see docs/rewarders.md")
        if name is None and len(self.rewarders) > 1:
            raise ConfigError(f"the configuration has several rewarders: choose one by --name ({known})")
        if name is not None and name not in self.rewarders:
            raise ConfigError(f"there is no rewarder '{name}'; the configuration has {known} ([rewarders.<name>])")
        name = name or known
        return self.model_copy(update={"rewarders": {name: self.rewarders[name]}})

    @property
    def archiving(self) -> bool:
        """Whether `rft run` starts an archiver."""
        enabled = self.archive.enabled
        return self.broker.kind == "embedded" if enabled is None else enabled

    @property
    def archive_url(self) -> str:
        """Folder or fsspec URL of the archive."""
        return self.archive.url or str(self.run.path / "archive")

    @property
    def pacing_bound(self) -> int:
        """How many groups may be issued and not yet retired.

        This is (max_staleness + 1) · sync_interval · new groups of a step.
        """
        trainer = self.trainer
        return (trainer.max_staleness + 1) * trainer.sync_interval * self.new_groups_per_step

    @property
    def holds_steps(self) -> bool:
        """Whether the trainer waits for groups that would be too stale. Only one that paces the run does."""
        paces = self.run.mode == "online" and self.trainer.follows is None
        return paces and self.buffer.too_stale == "hold"

    @property
    def new_groups_per_step(self) -> int:
        """How many groups of a step explorers must roll out for it."""
        shares = self.buffer.shares(self.trainer.groups_per_step)
        return shares.get("rollout", 0) if shares else self.trainer.groups_per_step


def _overridden(section: Section, values: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section's set ``values`` overridden by ``fields``. Inner sections are merged, options are replaced."""
    result = {**values, **fields}
    for name, value in fields.items():
        if isinstance(getattr(section, name, None), Section) and isinstance(value, Mapping):
            result[name] = {**values.get(name, {}), **value}
    return result

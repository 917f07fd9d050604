"""The configuration: one typed tree, each field documented beneath itself.

Values come from TOML, ``RFT_<SECTION>__<FIELD>`` environment variables and ``--section.field value``,
each stronger than the one before (see :mod:`rft.config_sources`). This module does no I/O.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
EntityName = Literal["tasks", "experiences", "rewards", "ready", "weights", "members", "steps", "dlq", "waiting"]
"""The topics, see :mod:`rft.log.topics`."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RunConfig(Section):
    name: Name = "run"
    """Name of the run; its folder is ``folder/name``."""
    folder: Path = Path("runs")
    """Where run folders are made."""
    seed: int = 0
    """Seeds weights, tasks and sampling."""

    @property
    def path(self) -> Path:
        """The run's own folder, absolute."""
        return (self.folder / self.name).absolute()


class BrokerConfig(Section):
    kind: Literal["embedded", "kafka", "external"] = "embedded"
    """``embedded``: in-memory, nothing to install. ``kafka``: a local Apache Kafka node from ``kafka_home``, durable
    in the run's folder. ``external``: any cluster named by ``bootstrap_servers``."""
    bootstrap_servers: str | None = None
    """``host:port[,host:port]``. Required for ``external``; for the other kinds the launcher fills it in."""
    kafka_home: Path | None = None
    """Folder with Apache Kafka's ``libs/`` (for ``kafka``); the environment's KAFKA_HOME if not set."""
    port: int = Field(default=0, ge=0, le=65535)
    """Loopback port of a broker that we start; 0 takes a free one."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How clients talk to an external cluster."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """For the SASL protocols."""
    sasl_username: str | None = None
    """For the SASL protocols."""
    sasl_password: SecretStr | None = None
    """Better given as RFT_BROKER__SASL_PASSWORD than in a file."""
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the broker's certificate; the system's CAs if not set."""
    ssl_certfile: Path | None = None
    """PEM client certificate, for mutual TLS."""
    ssl_keyfile: Path | None = None
    """PEM key of ``ssl_certfile``."""
    ssl_check_hostname: bool = True
    """Whether the broker's certificate must name the host that we connect to."""
    connect_timeout_s: float = Field(default=4.0, gt=0, le=120)
    """How long a role waits for the broker at its start before it gives up with the cause."""

    @model_validator(mode="after")
    def _complete(self) -> BrokerConfig:
        if self.kind == "external" and not self.bootstrap_servers:
            raise ValueError("kind = 'external' needs bootstrap_servers = 'host:port'")
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"security_protocol = '{self.security_protocol}' needs sasl_username and sasl_password")
        return self


class LogConfig(Section):
    namespace: Name = "rft"
    """Prefix of all topics, ``<namespace>.<entity>.v1``, so that runs and teams can share a cluster."""
    partitions: int = Field(default=4, ge=1, le=1000)
    """Partitions of keyed topics; the most explorers and processors that can work at once."""
    replication_factor: int = Field(default=1, ge=1, le=9)
    """Copies of each partition; 3 in a production cluster."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    """Largest event that is written or accepted. Larger ones are decode errors."""
    experience_retention_hours: float = Field(default=24 * 14, gt=0)
    """Retention of experiences and rewards: longer than the longest reward delay."""
    audit_retention_hours: float = Field(default=24 * 365, gt=0)
    """Retention of steps and dead letters."""
    session_timeout_ms: int = Field(default=6000, ge=6000, le=300_000)
    """Consumer group session: how soon a dead member's partitions move."""


class RegistryConfig(Section):
    url: str | None = None
    """Base URL of a schema registry that speaks Confluent's API (Confluent, Karapace, Apicurio's ``/apis/ccompat/v7``,
    Redpanda). Events are then framed as Confluent's; without one they name their schema by fingerprint. Set for good:
    readers of events that were framed so need the registry."""
    username: str | None = None
    """For basic authentication; at Confluent Cloud the API key."""
    password: SecretStr | None = None
    """Better given as RFT_REGISTRY__PASSWORD than in a file."""
    ssl_cafile: Path | None = None
    """PEM file of the CA that signed the registry's certificate; the system's CAs if not set."""
    auto_register: bool = True
    """Register our schemas as ``<topic>-value``, with compatibility FULL_TRANSITIVE. If not, they must be there
    (`rft schemas register`)."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """For one request."""
    patience_s: float = Field(default=20.0, ge=0)
    """How long a role waits for a registry that does not answer before it ends and is restarted. Processors wait as
    long as it takes: no good event becomes a dead letter."""

    @model_validator(mode="after")
    def _complete(self) -> RegistryConfig:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if self.url is not None and "@" in self.url.partition("//")[2].partition("/")[0]:
            raise ValueError("url must not hold a user; set username and password")
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        return self


class TasksConfig(Section):
    source: str = "reasoning_gym:spell_backward"
    """``reasoning_gym:<dataset>``, ``jsonl:<file>`` or ``package.module:function`` of your own."""
    eval_source: str | None = None
    """Another source for held-out tasks; by default ``source`` split into disjoint train and held-out parts."""
    options: dict[str, Any] = {}
    """Passed to the source, e.g. a reasoning-gym dataset's own options."""
    eval_options: dict[str, Any] = {}
    """Passed to ``eval_source``."""
    prompt_template: str = "{question}"
    """Made with ``str.format`` from the source's ``question`` and metadata, e.g. ``{word}>``."""
    order: Literal["sequential", "shuffled"] = "shuffled"
    """Order of training tasks; shuffled anew each epoch."""


class RolloutConfig(Section):
    samples: int = Field(default=8, ge=1, le=1024)
    """Group size: rollouts of each task."""
    max_tokens: int = Field(default=64, ge=1)
    """Most tokens that one rollout may write."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Sampling temperature of training rollouts; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with at least this probability."""
    workflow: str = "single_turn"
    """``single_turn`` or ``package.module:function``."""
    deadline_s: float = Field(default=120.0, gt=0)
    """A rollout that takes longer is abandoned and tried again."""
    retries: int = Field(default=2, ge=0, le=20)
    """Further tries of a failed rollout; then it is published as failed and its group goes on without it."""
    max_in_flight: int = Field(default=512, ge=1)
    """Rollouts that one explorer runs at once."""


class PolicyConfig(Section):
    model: str = "model"
    """Folder in Hugging Face layout (config, tokenizer, safetensors), relative to the working directory."""
    engine: Literal["transformers"] = "transformers"
    """What generates text."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the explorer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of each explorer."""
    max_batch: int = Field(default=256, ge=1)
    """Most sequences that are generated together."""


class RewardTerm(Section):
    function: str
    """``exact_match``, ``numeric_match``, ``math_verify``, ``format``, ``length_penalty`` or
    ``package.module:function`` of your own."""
    weight: float = 1.0
    """Factor of this function's value in the sum."""
    options: dict[str, Any] = {}
    """Keyword arguments for the function."""


class ExternalRewardsConfig(Section):
    required: list[Name] = []
    """Sources that every experience for training needs a reward from, by the topic `rewards`; none: rewards of others
    are not waited for. Evaluation groups and demonstrations never wait."""
    optional: list[Name] = []
    """Sources that count when their reward has come by the time that the required ones have."""
    combine: Literal["weighted_sum", "product"] = "weighted_sum"
    """How the reward functions' sum and the sources' values become one reward. Of each source its last revision counts.
    In a product the functions take part only if there are any."""
    weights: dict[str, float] = {}
    """Factor of a source in the weighted sum, 1 if not named; ``functions`` names that of the functions' sum."""
    deadline_s: float = Field(default=7 * 24 * 3600, gt=0)
    """How long a group waits for its rewards, from its first experience on, by the events' own times."""
    on_missing: Literal["default", "without", "discard", "dead_letter"] = "without"
    """What becomes of an experience without all required rewards at the deadline. ``default``: the missing ones are
    ``default_value``. ``without``: it is filtered, its group goes on. ``discard``: its whole group is filtered.
    ``dead_letter``: filtered, and its event goes to `dlq`."""
    default_value: float = 0.0
    """For ``on_missing = "default"``."""
    max_early: int = Field(default=100_000, ge=1)
    """Groups of one partition that only rewards have come for; beyond it the oldest are forgotten (and counted)."""
    skip_deleted: bool = False
    """Go on without waiting experiences that the log has deleted. By default the processor stops and names them."""

    @model_validator(mode="after")
    def _consistent(self) -> ExternalRewardsConfig:
        sources = [*self.required, *self.optional]
        if len(set(sources)) < len(sources):
            raise ValueError("required and optional name a source twice")
        unknown = self.weights.keys() - {*sources, "functions"}
        if unknown:
            raise ValueError(f"weights names {', '.join(sorted(unknown))}, neither required nor optional")
        if self.weights and self.combine == "product":
            raise ValueError("weights are for combine = 'weighted_sum'")
        if self.optional and not self.required:
            raise ValueError("optional sources without required ones: nothing would be waited for")
        if "functions" in sources:
            raise ValueError("'functions' cannot be a source: it names the reward functions")
        return self


class ProcessorConfig(Section):
    external: ExternalRewardsConfig = ExternalRewardsConfig()
    """Rewards that come by the topic `rewards`, at any time."""
    rewards: list[RewardTerm] = [RewardTerm(function="exact_match")]
    """Summed with their weights."""
    group_deadline_s: float = Field(default=300.0, gt=0)
    """A group whose members have not all come by then is released with those that have."""
    min_group_size: int = Field(default=2, ge=1)
    """A group with fewer usable members is filtered as a whole (evaluation groups are exempt)."""
    max_response_tokens: int | None = Field(default=None, ge=1)
    """Experiences with more policy-written tokens are filtered as ``too_long``."""
    drop_truncated: bool = False
    """Filter experiences whose response was cut at ``max_tokens``, cause ``truncated``."""
    drop_uniform_groups: bool = False
    """Filter groups whose rewards are all equal, cause ``uniform``: they carry no gradient in GRPO."""
    priority: str = "fifo"
    """``fifo``, ``reward_variance`` or ``package.module:function``; higher is trained first."""
    buffer_mb: float = Field(default=512.0, gt=0)
    """Bound, in MiB on the wire, of the members that wait for their groups; beyond it the oldest groups are released
    before their deadline, with the members that have come."""


class AlgorithmConfig(Section):
    name: Literal["grpo"] = "grpo"
    """Group relative policy optimisation (DeepSeekMath, arXiv:2402.03300)."""
    advantage: Literal["group_normalized", "group_centered"] = "group_normalized"
    """(r - mean) / std within the group (GRPO), or without the division (Dr. GRPO)."""
    loss: Literal["clipped", "reinforce"] = "clipped"
    """PPO's clipped ratio, or the plain policy gradient."""
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """Lower clip: ratios are clipped to [1 - clip_low, 1 + clip_high]."""
    clip_high: float = Field(default=0.2, ge=0)
    """Upper clip."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Of ``clipped``: a token of negative advantage that has become so many times likelier than it was gives no more
    gradient. For data far from the policy; replays of other data than whole steps set it to 2 if it is not set."""
    kl: Literal["none", "k1", "k2", "k3"] = "none"
    """KL estimator against the initial weights, added to the loss."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL term."""
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"
    """Mean over all tokens of a step, or over sequences of their token means."""


class TrainerConfig(Section):
    model_key: Name = "policy"
    """Identity of this trainer: key of its weight versions and steps."""
    steps: int = Field(default=100, ge=1)
    """Gradient steps of the run."""
    groups_per_step: int = Field(default=16, ge=1)
    """Groups in one step's batch."""
    sync_interval: int = Field(default=1, ge=1)
    """Steps between weight versions."""
    max_staleness: int = Field(default=1, ge=0)
    """0 on-policy, 1 one step off, k asynchronous: weight versions that a token may be old when it is trained."""
    max_barren_groups: int = Field(default=1000, ge=0)
    """Groups in a row that may be retired without one gradient step (all filtered or stale) before the run fails and
    says why; 0: any number."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Of AdamW, after warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global L2 norm."""
    micro_batch_tokens: int = Field(default=16384, ge=1)
    """Most tokens (padding included) of one forward pass."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the trainer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads. A resumed run repeats the interrupted one bit for bit only with the same number."""
    checkpoint_interval: int = Field(default=50, ge=1)
    """Steps between checkpoints (weights, optimiser, RNG and log positions as one atomic unit)."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept on disk."""
    keep_every: int = Field(default=0, ge=0)
    """Checkpoints of every so many steps are kept for ever, beside the newest; 0: none. A multiple of
    ``checkpoint_interval``."""
    keep_versions: int = Field(default=4, ge=2)
    """Published weight versions kept on disk; explorers need the newest only."""
    buffer_mb: float = Field(default=256.0, gt=0)
    """Bound of the experience buffer in MiB; when it is full, reading pauses as soon as a step is possible, and what
    is read until then is remembered by its place in the log."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainerConfig:
        if self.keep_every % self.checkpoint_interval:
            raise ValueError(
                f"keep_every = {self.keep_every} must be a multiple of checkpoint_interval = {self.checkpoint_interval}"
            )
        return self


class EvalConfig(Section):
    tasks: int = Field(default=500, ge=0)
    """Held-out tasks; 0 turns evaluation off."""
    every_versions: int = Field(default=0, ge=0)
    """Evaluate every so many weight versions while training; 0: only before and after."""
    interim_tasks: int = Field(default=100, ge=1)
    """Held-out tasks of an evaluation while training."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""


class ArchiveConfig(Section):
    enabled: bool | None = None
    """Copy the topics to ``url`` while the run goes on. By default only with the embedded broker, whose log ends with
    its run."""
    url: str | None = None
    """Folder or fsspec URL (``s3://bucket/path``); by default ``archive`` in the run's folder."""
    entities: tuple[EntityName, ...] = get_args(EntityName)
    """The topics to copy."""
    roll_mb: float = Field(default=64.0, gt=0)
    """A file is finished when it has this many MiB."""
    roll_s: float = Field(default=60.0, gt=0)
    """A file is finished when it is this old. What has come since is not in the archive if broker and archiver die
    together."""
    codec: Literal["null", "deflate"] = "null"
    """Compression of the files. ``deflate`` makes short events 3.5 times smaller for 4 µs each, but 1,024-token ones
    only by a quarter, for 180 µs each."""
    skip_missing: bool = False
    """Go on after events that the log deleted before they were copied; the archive then has a gap, which its readers
    report. By default the archiver stops and says which range is gone."""


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
    tasks: TasksConfig = TasksConfig()
    rollout: RolloutConfig = RolloutConfig()
    policy: PolicyConfig = PolicyConfig()
    processor: ProcessorConfig = ProcessorConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    trainer: TrainerConfig = TrainerConfig()
    eval: EvalConfig = EvalConfig()
    archive: ArchiveConfig = ArchiveConfig()
    launcher: LauncherConfig = LauncherConfig()

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
        """Groups that may be issued and not yet retired: (max_staleness + 1) · sync_interval · groups_per_step."""
        trainer = self.trainer
        return (trainer.max_staleness + 1) * trainer.sync_interval * trainer.groups_per_step

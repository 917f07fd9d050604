"""``[trainer]``: what a gradient step is, how it is computed, and what is kept of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.section import Name, Section


class LoraConfig(Section):
    rank: int = Field(default=0, ge=0, le=1024)
    """Rank of the adapters (LoRA, arXiv:2106.09685); 0 trains the whole model."""
    alpha: int = Field(default=16, ge=1)
    """The output of an adapter is scaled by ``alpha / rank``."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which modules get adapters: ``all-linear`` (all linear layers except the output layer), or names like
    ``["q_proj", "v_proj"]``."""


class TrainerConfig(Section):
    model_key: Name = "policy"
    """Identity of this trainer: key of its weight versions and steps. Two trainers with one identity exclude each
    other: the newer takes over, and the older stops."""
    follows: Name | None = None
    """Identity of the trainer that paces the run, if it is another one. This trainer then learns from what the other's
    policy has written. It ends, at the latest, when the other has ended and nothing more comes. ``[trainers.<key>]``
    sets it."""
    min_reward: float | None = None
    """Experiences with a lower reward are not trained, cause ``filtered``. With ``algorithm.name = "sft"`` this is
    rejection sampling (RAFT, arXiv:2304.06767)."""
    steps: int = Field(default=100, ge=1)
    """Gradient steps of the run."""
    groups_per_step: int = Field(default=16, ge=1)
    """Groups in one step's batch."""
    sync_interval: int = Field(default=1, ge=1)
    """Steps between weight versions."""
    max_staleness: int = Field(default=1, ge=0)
    """How many weight versions old a token may be when it is trained: 0 is on-policy, 1 is one step off, k is
    asynchronous."""
    max_barren_groups: int = Field(default=1000, ge=0)
    """Groups in a row that may be retired without a gradient step, because all were filtered or stale, before the run
    fails and says why; 0: no limit."""
    max_failed_groups: int = Field(default=32, ge=0)
    """Groups in a row that may fail, because each of their rollouts or rewards raised an error, before the run fails
    and says why. Before the first step, as many held-out answers. 0: no limit."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """AdamW's learning rate after warm-up, the highest of the run."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly."""
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after warm-up: ``constant``, or falling to ``final_learning_rate`` in a line or
    along half a cosine."""
    final_learning_rate: float = Field(default=0.0, ge=0)
    """Learning rate at the end of a falling schedule, and after it."""
    decay_steps: int | None = Field(default=None, ge=1)
    """Steps, those of warm-up included, over which a schedule falls; by default ``steps``. Set it if ``steps`` will be
    raised later: a step that is redone must have the rate that it had."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's β₁ and β₂."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global L2 norm."""
    epochs: int = Field(default=1, ge=1)
    """How often a step goes over its batch."""
    minibatches: int = Field(default=1, ge=1)
    """Number of parts of a step's batch, each of whole groups; each part gets one optimizer update. The division is
    shuffled each epoch. It follows from the step's number, so a step that is redone has the same parts."""
    micro_batch_tokens: int = Field(default=16384, ge=1)
    """Limit on the tokens of one forward pass, padding included."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the trainer's weights."""
    threads: int = Field(default=1, ge=1)
    """CPU threads. A resumed run repeats the interrupted one bit for bit only with the same number of threads."""
    max_logprob_gap: float | None = Field(default=0.5, gt=0)
    """Limit of ``logprob_gap_mean``, in nats: the mean distance between the trainer's and the sampler's
    log-probabilities of tokens that the weights of this very step have sampled. A larger distance means that the two
    see different samples (another tokenizer, template, dtype or sampling setting). Tokens of older weights may be as
    far as the policy has moved since: an engine that stamps new versions and samples from old weights is found by that.
    ``none``: nothing is checked or measured for it."""
    on_logprob_gap: Literal["warn", "stop"] = "warn"
    """What happens if either check fails: a warning, at most every 50 steps, or the end of the run."""
    checkpoint_interval: int = Field(default=50, ge=1)
    """Steps between checkpoints (weights, optimizer, RNG and log positions as one atomic unit)."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of newest checkpoints that stay on disk."""
    keep_every: int = Field(default=0, ge=0)
    """Steps between checkpoints that stay on disk for good, besides the newest; 0: none do. Must be a multiple of
    ``checkpoint_interval``."""
    keep_versions: int = Field(default=4, ge=2)
    """Number of published weight versions that stay on disk. Explorers need only the newest."""
    patience_s: float = Field(default=20.0, ge=0)
    """In the mode ``train``: after the first data has come, training ends before ``steps`` are done if no more data
    comes and no step is possible for this long; 0: wait without limit."""
    buffer_mb: float = Field(default=256.0, gt=0)
    """Limit of the experience buffer in MiB. When it is full, reading pauses as soon as a step is possible. Until then
    only the log positions of further experiences are kept."""
    engine: Literal["torch", "deepspeed"] = "torch"
    """``torch``: one process. ``deepspeed``: ``ranks`` processes on this machine, over gloo on CPUs and NCCL on GPUs;
    needs ``pip install 'stream-rft[deepspeed]'``."""
    ranks: int = Field(default=1, ge=1, le=64)
    """Data-parallel processes of ``deepspeed``, each with ``threads`` CPU threads or a GPU of its own."""
    zero_stage: Literal[1, 2, 3] = 2
    """What ``deepspeed`` splits among the ranks (ZeRO, arXiv:1910.02054): 1 the optimizer's state, 2 also gradients,
    3 also weights."""
    rank_timeout_s: float = Field(default=600.0, gt=0)
    """A rank that does not take part in a step for this long has failed, and the trainer fails with it."""
    packing: Literal["auto", "on", "off"] = "auto"
    """``on``: the sequences of a micro-batch share one row without padding, and each attends only to itself. ``off``:
    each has a row, padded to the longest. ``auto``: packed where padding would cost more."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them. This saves memory and takes about a third
    more time."""
    compile: bool = False
    """Compile the model with torch.compile, for shapes that vary. Compiling takes a minute or more at each start. It
    does not work with ``packing = "on"`` or ``deepspeed``."""
    lora: LoraConfig = LoraConfig()
    """Train only low-rank adapters; needs ``pip install 'stream-rft[lora]'``. Weight versions hold the merged model, or
    only the adapters with ``weights.content = "adapters"``."""
    redo_tolerance: float = Field(default=0.0, ge=0)
    """Largest allowed difference of any one weight between redone steps and the weights that were announced. 0: each
    redone step must give the recorded bits. To resume with another number of ranks or another engine or machine, set
    more than 0, such as 1e-3, unless the checkpoint is of the last step."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainerConfig:
        if self.keep_every % self.checkpoint_interval:
            raise ValueError(
                f"keep_every = {self.keep_every} must be a multiple of checkpoint_interval = {self.checkpoint_interval}"
            )
        return self

    @model_validator(mode="after")
    def _schedule_falls(self) -> TrainerConfig:
        if self.learning_rate_schedule == "constant":
            return self
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate:g} is above learning_rate = {self.learning_rate:g}, "
                f"but the schedule '{self.learning_rate_schedule}' falls: lower it"
            )
        if self.decay_end <= self.warmup_steps:
            source = "steps" if self.decay_steps is None else "decay_steps"
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} leaves no steps in which the learning rate can fall: it must be "
                f"below {source} = {self.decay_end}"
            )
        return self

    @property
    def decay_end(self) -> int:
        """The last step of a falling learning rate."""
        return self.steps if self.decay_steps is None else self.decay_steps

    @model_validator(mode="after")
    def _engine_can(self) -> TrainerConfig:
        if self.engine == "torch" and self.ranks > 1:
            raise ValueError(f"ranks = {self.ranks} needs engine = 'deepspeed': 'torch' is one process")
        if self.compile and (self.packing == "on" or self.engine == "deepspeed"):
            other = "packing = 'on'" if self.packing == "on" else "engine = 'deepspeed'"
            raise ValueError(f"compile = true does not work with {other}: unset one of them")
        return self


def engine_fields(trainer: TrainerConfig) -> dict[str, Any]:
    """Return, as plain values, the fields on how a step is computed that decide its bits."""
    names = ("engine", "ranks", "zero_stage", "packing", "gradient_checkpointing", "compile", "lora")
    return {name: value for name, value in trainer.model_dump(mode="json").items() if name in names}

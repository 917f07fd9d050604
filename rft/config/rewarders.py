"""``[rewarders.<name>]``: roles that reward experiences outside the stream processor, by anything that is slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.section import Section

SHIPPED_REWARDERS = ("judge", "code_tests", "reward_model")


class RewarderConfig(Section):
    function: str
    """``judge`` (a language model), ``code_tests`` (runs the response's code in a sandbox), ``reward_model`` (a
    sequence classifier from a folder), or ``package.module:function`` of your own, plain or ``async``."""
    options: dict[str, Any] = {}
    """Keyword arguments for the function, see docs/rewarders.md."""
    scope: Literal["sample", "group"] = "sample"
    """What the function gets at once: one sample, or a list of all samples of a group, for which it returns a list."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Samples or groups that one process rewards at once."""
    rate: float | None = Field(default=None, gt=0)
    """Limit on the tries that one process starts per second."""
    deadline_s: float = Field(default=120.0, gt=0)
    """How long one try may take."""
    memory_mb: int | None = Field(default=2048, ge=64)
    """Limit on the memory of each process that a plain function of yours runs in, in MiB of address space."""
    retries: int = Field(default=3, ge=0, le=100)
    """Tries after the first one that failed. Then the sample is a dead letter with its cause."""
    backoff_s: float = Field(default=1.0, gt=0)
    """Pause before the first retry. Each further one is twice as long, up to a minute. A server's Retry-After counts,
    too."""
    outage_s: float = Field(default=600.0, gt=0)
    """How long a service that does not answer, or answers 429 or 5xx, is asked again. These tries are no ``retries``.
    Then the role ends with an error if no sample was rewarded meanwhile; else the sample is at fault, and is a dead
    letter."""
    on_failure: Literal["dead_letter", "default"] = "dead_letter"
    """What becomes of a sample that could not be rewarded. Both publish its experience in `dlq` with the cause.
    ``dead_letter``: it gets no reward, so ``processor.external.deadline_s`` and ``on_missing`` decide.
    ``default``: it also gets ``default_value``, so its group waits no longer."""
    default_value: float = 0.0
    """The reward for ``on_failure = "default"``."""
    cache: bool | None = None
    """Whether a reward is kept by its content and taken from there when the same is asked again. By default true for
    ``judge`` and false for the others."""
    cache_folder: Path | None = None
    """Folder of the cache, by default ``<run>/rewarders/<name>``. Several processes on one machine may share it."""
    revision: int = Field(default=0, ge=0)
    """Revision of the rewards. With a higher one, the role reads all experiences again and replaces its rewards."""
    processes: int = Field(default=1, ge=1)
    """Processes that `rft run` starts. At most one for each partition has work."""

    @property
    def caches(self) -> bool:
        """Whether rewards are kept by content."""
        return self.function == "judge" if self.cache is None else self.cache

    @model_validator(mode="after")
    def _fits_together(self) -> RewarderConfig:
        if self.function in ("code_tests", "reward_model") and self.scope == "group":
            raise ValueError(f"function = '{self.function}' rewards each sample by itself: set scope = 'sample'")
        return self

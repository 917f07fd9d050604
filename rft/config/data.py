"""Data that comes from files: which, and what their columns are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rft.config.section import Name, Section


class ColumnsConfig(Section):
    prompt: str = "prompt"
    """A text, or a list of chat messages (``role``, ``content``)."""
    response: str = "response"
    """Of demonstrations: what the expert wrote, a text or a list of chat messages."""
    messages: str | None = None
    """Of demonstrations: a whole conversation as a list of chat messages, instead of prompt and response."""
    chosen: str = "chosen"
    """Of preferences: the better answer; a text, or a list of chat messages that may begin with the prompt's."""
    rejected: str = "rejected"
    """Of preferences: the worse answer, written as ``chosen`` is."""
    answer: str | None = None
    """Reference answer for reward functions."""
    reward: str | None = None
    """Of demonstrations: a number."""
    metadata: list[str] = []
    """Columns that become the event's metadata, under their own names."""


class ImportConfig(Section):
    name: Name
    """Identifies the import: ids begin with it, and what it has published it does not publish again."""
    path: Path
    """A ``.jsonl``, ``.parquet`` or ``.arrow`` file, a folder of Parquet files, or a Hugging Face dataset that was
    saved to disk; relative to the working directory. Of ``experiences``: the folder of an archive, or an ``.avro``
    file of ``rft replay``."""
    kind: Literal["demonstrations", "preferences", "tasks", "experiences"] = "demonstrations"
    """``demonstrations``: what an expert wrote. ``preferences``: pairs of a better and a worse answer. ``tasks``: what
    explorers are to roll out, without a conductor's pacing (for training within bounds: ``tasks.source =
    "import:<name>"``). ``experiences``: rollouts of another run, with their rewards."""
    manual: bool = False
    """Not published by `rft run`: a source of tasks (``tasks.source = "import:<name>"``), or one for `rft import`."""
    subset: str | None = None
    """Of a dataset with several: which, e.g. ``train``."""
    columns: ColumnsConfig = ColumnsConfig()
    """What the columns are."""
    prompt_template: str | None = None
    """Made with ``str.format`` from the row's columns, instead of the column ``prompt``, e.g. ``{word}>``."""
    chat: bool = False
    """Prompts that are plain texts become a user's message in the model's chat template. Chat messages always go
    through it."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Rows with more tokens, prompt included, are rejected."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many rows."""
    rejected: Path | None = None
    """File for rejected rows; by default ``<path>.rejected.jsonl``."""

    @model_validator(mode="after")
    def _consistent(self) -> ImportConfig:
        if self.kind == "experiences" and self.subset is not None:
            raise ValueError("subset is for datasets, not for experiences")
        if self.columns.messages is not None and self.kind not in ("demonstrations", "tasks"):
            raise ValueError("columns.messages is for demonstrations and tasks")
        return self

    @property
    def rejected_path(self) -> Path:
        """Where rejected rows go."""
        return self.rejected or self.path.with_name(f"{self.path.name}.rejected.jsonl")

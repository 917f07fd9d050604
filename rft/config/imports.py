"""``[[imports]]``: data that comes from files, and what their columns are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rft.config.section import Name, Section


class ColumnsConfig(Section):
    prompt: str = "prompt"
    """Column of the prompt: a text, or a list of chat messages (``role``, ``content``)."""
    response: str = "response"
    """For demonstrations: what the expert wrote, a text or a list of chat messages."""
    messages: str | None = None
    """For demonstrations: a whole conversation as a list of chat messages, instead of prompt and response."""
    chosen: str = "chosen"
    """For preferences: the better answer, a text or a list of chat messages that may begin with the prompt's."""
    rejected: str = "rejected"
    """For preferences: the worse answer, in the same form as ``chosen``."""
    answer: str | None = None
    """Column of the reference answer, for reward functions."""
    reward: str | None = None
    """For demonstrations: column of the reward, a number."""
    metadata: list[str] = []
    """Columns that become the event's metadata, under their own names."""


class ImportConfig(Section):
    name: Name
    """Identifies the import: ids begin with it, and rows that were published under it are not published again."""
    path: Path
    """A ``.jsonl``, ``.parquet`` or ``.arrow`` file, a folder of Parquet files, or a Hugging Face dataset saved to
    disk, relative to the working directory; or ``hf:<owner>/<name>``, a dataset of the Hugging Face hub. For
    ``experiences``: the folder of an archive, or an ``.avro`` file written by `rft replay`."""
    revision: str | None = None
    """Branch, tag or commit of the hub's dataset, by default ``main``. See ``policy.revision``."""
    config: str | None = None
    """Configuration of the hub's dataset, e.g. ``main``; by default its default one."""
    kind: Literal["demonstrations", "preferences", "tasks", "experiences"] = "demonstrations"
    """``demonstrations``: what an expert wrote. ``preferences``: pairs of a better and a worse answer. ``tasks``:
    prompts that explorers roll out without a conductor's pacing (to pace them, set ``tasks.source = "import:<name>"``).
    ``experiences``: rollouts of another run, with their rewards."""
    manual: bool = False
    """Do not publish this in `rft run`: it is a source of tasks (``tasks.source = "import:<name>"``), or it is
    published by `rft import`."""
    subset: str | None = None
    """Which subset (split) of a dataset that has several, e.g. ``train``."""
    columns: ColumnsConfig = ColumnsConfig()
    """The names of the columns."""
    prompt_template: str | None = None
    """Makes the prompt with ``str.format`` from the row's columns, e.g. ``{word}>``, instead of the column
    ``prompt``."""
    chat: bool = False
    """Put prompts that are plain texts into the model's chat template as a user's message. Chat messages always go
    through the template."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Rows with more tokens, prompt included, are rejected."""
    limit: int | None = Field(default=None, ge=1)
    """Number of rows to import, from the first on."""
    rejected: Path | None = None
    """File that rejected rows are written to; by default ``<path>.rejected.jsonl``, and for a hub's dataset
    ``<name>.rejected.jsonl`` in the working directory."""

    @model_validator(mode="after")
    def _consistent(self) -> ImportConfig:
        if self.kind == "experiences" and self.subset is not None:
            raise ValueError("subset is for datasets, not for experiences")
        if self.kind == "experiences" and self.on_hub:
            raise ValueError("experiences come from an archive or an .avro file, not from the hub")
        if self.config is not None and not self.on_hub:
            raise ValueError("config is for datasets of the hub (path = 'hf:owner/name')")
        if self.columns.messages is not None and self.kind not in ("demonstrations", "tasks"):
            raise ValueError("columns.messages is for demonstrations and tasks")
        return self

    @property
    def on_hub(self) -> bool:
        """Whether ``path`` names a dataset of the Hugging Face hub."""
        return str(self.path).startswith("hf:")

    @property
    def rejected_path(self) -> Path:
        """The file that rejected rows are written to."""
        beside = Path(self.name) if self.on_hub else self.path
        return self.rejected or beside.with_name(f"{beside.name}.rejected.jsonl")

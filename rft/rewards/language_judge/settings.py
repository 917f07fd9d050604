"""Defines the options of ``function = "judge"``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.section import Section

DEFAULT_RUBRIC = "Correctness comes first, then completeness, then clarity. Length has no value of its own."


class JudgeOptions(Section):
    base_url: str
    """Of the endpoint, such as ``http://127.0.0.1:8000/v1``."""
    model: str
    """Name of the model at the endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key. If it is not set, none is sent."""
    rubric: str = Field(default=DEFAULT_RUBRIC, min_length=1, max_length=20_000)
    """What a good response is, in your words. Part of the judge's instructions."""
    lowest: float = 0.0
    """With scope ``sample``: the worst score that the judge may give; it becomes the reward 0."""
    highest: float = 10.0
    """With scope ``sample``: the best score, which becomes the reward 1."""
    method: Literal["ranking", "pairwise"] = "ranking"
    """With scope ``group``. ``ranking``: one request orders all responses; the reward falls from 1 for the best to 0
    for the worst. ``pairwise``: each two responses are compared, in both orders; the reward is the share of its
    comparisons that a response wins, and a draw counts half."""
    max_chars: int = Field(default=20_000, ge=100, le=1_000_000)
    """Characters of the prompt, of the answer and of each response that the judge sees. Of a longer text the middle is
    left out, with a note."""
    max_tokens: int = Field(default=1024, ge=16)
    """Tokens that the judge may write for one answer."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    timeout_s: float = Field(default=60.0, gt=0)
    """How long one request may take."""
    request: dict[str, Any] = {}
    """Further fields of the request's body, such as ``{ reasoning_effort = "low" }``."""
    price_per_million: tuple[float, float] = (0.0, 0.0)
    """Prices of a million prompt and a million completion tokens, to count the cost."""

    @model_validator(mode="after")
    def _sound(self) -> JudgeOptions:
        if not self.lowest < self.highest:
            raise ValueError("lowest must be below highest")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url = '{self.base_url}': must begin with http:// or https://")
        taken = {"model", "messages", "stream", "n"} & self.request.keys()
        if taken:
            raise ValueError(f"request cannot set {min(taken)}")
        return self

"""Checks the rewarders."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.errors import ConfigError
from rft.rewards.judges import check_judge


def rewarders(facts: Facts) -> Iterator[Finding]:
    """Find functions that do not load, wrong options, missing models, and machines that cannot isolate code."""
    for name, config in facts.config.rewarders.items():
        try:
            warnings = asyncio.run(check_judge(name, config))
        except ConfigError as error:
            yield Finding("fail", str(error), exit_code=ConfigError.exit_code)
            continue
        yield from (Finding("warn", warning) for warning in warnings)
        yield Finding("ok", f"rewarder {name}: {config.function}")

"""Checks environment variables that look like settings and set nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.config import Config
from rft.config_faults import known_names

PREFIX = "RFT_"
OWN = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "CHECKED",
        "EXIT_FILE",
        "LOG_LEVEL",
        "MODULE_FOLDERS",
        "REQUIRE",
        "ROLE_NAME",
        "RUN_DATA",
        "TASK",
        "TASK_FILE",
    )
)
"""Variables of ours that are no settings."""


def variables(facts: Facts) -> Iterator[Finding]:
    """Find variables ``RFT_…`` that nothing reads."""
    mentioned = facts.config.model_dump_json()
    for name, setting in unread(os.environ).items():
        if name not in mentioned:
            hint = f"; did you mean {setting}?" if setting else ""
            yield Finding(
                "warn",
                f"the environment variable {name} sets nothing{hint}",
                "settings are RFT_<SECTION>__<FIELD>, with two underscores; rename it, or unset it",
            )


def unread(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that begin as settings do and are none, each with the nearest setting if there is one."""
    names = [name for name in environ if name.startswith(PREFIX) and "__" not in name and name not in OWN]
    settings = {
        f"{PREFIX}{section}_{field}".upper(): f"{PREFIX}{section}__{field}".upper()
        for section in Config.model_fields
        for field in known_names((section,))
    }
    return {name: settings.get(next(iter(get_close_matches(name, settings, 1, 0.85)), "")) for name in sorted(names)}

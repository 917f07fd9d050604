"""Checks what a run that serves agents needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from infra.preflight.contract import Finding

if TYPE_CHECKING:
    from infra.preflight.facts import Facts

PACKAGES = ("starlette", "uvicorn")


def gateway(facts: Facts) -> Iterable[Finding]:
    """Check the extra and the secret, and warn of sessions that no trainer would see."""
    config = facts.config
    if not config.gateway.serve:
        return
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        yield Finding("fail", f"gateway.serve needs the package {missing[0]!r}", "pip install 'stream-rft[gateway]'", 2)
    variable = config.gateway.token_env
    if variable is not None and not os.environ.get(variable):
        yield Finding("fail", f"gateway.token_env = {variable!r} is not set or empty", "export a secret", 2)
    least = config.processor.min_group_size
    if least > 1:
        yield Finding(
            "warn",
            f"gateway.serve: sessions that are not opened as a group are groups of one, and processor.min_group_size = "
            f"{least} filters them",
            "let agents open groups by POST /rft/sessions, or set min_group_size = 1 and an algorithm whose advantages "
            "need no group",
        )

"""Makes the checks for :mod:`infra.preflight.process`: a JSON request on standard input, a JSON line for each finding.

What users' modules print goes to standard error, whatever way they write it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any


def main() -> None:
    """Answer one request."""
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=False)
    request = json.load(sys.stdin)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=replies, flush=True)

    from infra.preflight.checks import checks_of, findings_of
    from infra.preflight.facts import Facts
    from rft.config import Config

    facts = Facts(Config.model_validate(request["config"]), request["roles"])
    for check in checks_of(request["roles"]):
        reply({"subject": check.subject})
        for finding in findings_of(check, facts):
            reply(asdict(finding))
    reply({"done": True})
    # Threads and exit handlers of users' modules must not keep it.
    os._exit(0)


if __name__ == "__main__":
    main()

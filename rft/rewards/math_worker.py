"""Runs math-verify in a process for :mod:`rft.rewards.mathematics`: one JSON request a line, one JSON reply a line.

It imports nothing of ours and ends when standard input ends. A request that exceeds its CPU time kills the process, by
a signal without a handler, which works inside C code too.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

MEMORY_BYTES = 4 * 1024**3
"""Limit on the address space: an expression that needs more is not an answer."""


def main() -> None:
    from math_verify import parse, verify

    # The library warns that its own timeouts are off. They would catch ours, which is stricter.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    # Ctrl-C in a terminal reaches the whole process group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["timeout_s"])
        answer = request["answer"]
        marked = "$" in answer or "\\boxed" in answer
        gold = parse(answer if marked else f"${answer}$", parsing_timeout=None)
        reply: dict[str, object]
        if gold:
            try:
                given = parse(request["response"], parsing_timeout=None)
                reply = {"reward": bool(verify(gold, given, timeout_seconds=None))}
            except (MemoryError, RecursionError):
                reply = {"reward": False}
        else:
            reply = {"error": f"the answer {answer!r} is not mathematics"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()

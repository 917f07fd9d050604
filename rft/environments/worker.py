"""Runs one environment in a process of its own. :mod:`rft.environments.worker_process` is the other end.

Standard input and output carry the messages of :mod:`rft.environments.wire`. The process ends when standard input does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from rft.environments.base import Environment
from rft.environments.opening import open_environment
from rft.environments.wire import encode_reply, reset_reply, step_reply
from rft.workers.child import limit_memory, take_standard_streams
from rft.workers.lines import MAX_FAULT_CHARS, WireError, decode, encode

PR_SET_PDEATHSIG = 1


def main() -> None:
    explorer = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != explorer:
        return  # it died before the signal was set
    # Modules of the working directory need no installation; they come last, so they replace no library.
    sys.path.append(os.getcwd())
    requests, replies = take_standard_streams()
    environment: Environment | None = None
    for line in requests:
        request = decode(line)
        match request["op"]:
            case "open":
                limit_memory(request["memory_bytes"])
                environment = _answer(replies, "its start", partial(open_environment, *request["environment"]), _opened)
            case "reset":
                assert environment is not None
                reset = partial(environment.reset, request["seed"], request["task"])
                _answer(replies, "reset", reset, reset_reply)
            case "step":
                assert environment is not None
                _answer(replies, "step", partial(environment.step, request["action"]), step_reply)
    if close := getattr(environment, "close", None):
        close()
    sys.stderr.flush()
    # Threads that the environment has left behind must not keep the process.
    os._exit(0)


def _opened(environment: Environment) -> dict[str, Any]:
    return {"reusable": bool(getattr(environment, "reusable", False))}


def _answer(replies: BinaryIO, what: str, call: Callable[[], Any], reply: Callable[[Any], dict[str, Any]]) -> Any:
    """Send what ``call`` returns, and return it. If it fails, send the fault and end the process."""
    try:
        result = call()
        line = encode_reply(reply(result))
    except WireError as error:
        _end(replies, f"{what}: what it returned {error}")
    except MemoryError:
        _end(replies, f"{what} ran out of memory (rollout.environment_memory_mb)")
    # The environment's code may raise anything, and nothing else runs here that would have to go on.
    except BaseException as error:
        traceback.print_exc()
        _end(replies, f"{what} raised {type(error).__name__}: {error}")
    replies.write(line)
    replies.flush()
    return result


def _end(replies: BinaryIO, fault: str) -> None:
    sys.stderr.flush()
    replies.write(encode({"fault": fault[:MAX_FAULT_CHARS]}))
    replies.flush()
    os._exit(1)


if __name__ == "__main__":
    main()

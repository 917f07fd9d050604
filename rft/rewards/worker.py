"""Runs reward functions in a process of its own. :mod:`rft.rewards.isolation` is the other end.

``open`` loads functions and gives ``wanted``, what each wants to see of a sample, or ``config_error``. ``score`` gives
``rewards`` by name, or ``error``: a function that raises fails its sample, and the process goes on. It ends when
standard input does, and when a function has used up its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Mapping
from typing import Any

from rft.errors import ConfigError, RewardError
from rft.plugins import error_text
from rft.rewards.functions import LoadedReward, Sample, load_reward
from rft.workers.child import limit_memory, take_standard_streams
from rft.workers.lines import MAX_FAULT_CHARS, decode, encode


def main() -> None:
    if os.getppid() != int(sys.argv[1]):
        return  # the role has died
    requests, replies = take_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what a function printed before it hangs must be seen
    loop = asyncio.new_event_loop()
    loaded: list[LoadedReward] = []
    for line in requests:
        request = decode(line)
        match request["op"]:
            case "open":
                loaded, reply = _open(request)
            case "score":
                reply = _score(loaded[request["function"]], request["sample"], loop)
        replies.write(encode(reply))
        replies.flush()
        if "ends" in reply:
            break
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Threads that a function has left behind must not keep the process.
    os._exit(0)


def _open(request: Mapping[str, Any]) -> tuple[list[LoadedReward], dict[str, Any]]:
    limit_memory(request["memory_bytes"])
    # After ours, so that they replace no library.
    sys.path += [path for path in request["path"] if path not in sys.path]
    try:
        loaded = [load_reward(name, options, request["setting"]) for name, options in request["functions"]]
    except ConfigError as error:
        return [], {"config_error": str(error)[:MAX_FAULT_CHARS]}
    except BaseException as error:  # as below
        return [], {"config_error": f"{request['setting']}: {_described(error)}"}
    return loaded, {"wanted": [reward.wanted for reward in loaded]}


def _score(reward: LoadedReward, sample: Mapping[str, Any], loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    try:
        seen = Sample(**sample)
        values = loop.run_until_complete(reward.call_async(seen)) if reward.is_async else reward.call(seen)
    except RewardError as error:
        out_of_memory = isinstance(error.__cause__, MemoryError)
        return {"error": str(error)[:MAX_FAULT_CHARS]} | ({"ends": "memory"} if out_of_memory else {})
    # A user's code may raise anything, KeyboardInterrupt and CancelledError too. Nothing else runs here.
    except BaseException as error:
        return {"error": f"reward function {reward.name} raised {_described(error)}"}
    return {"rewards": values}


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error_text(error)}"[:MAX_FAULT_CHARS]


if __name__ == "__main__":
    main()

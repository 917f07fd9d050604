"""Reward functions that misbehave as users' code does. ``response`` names the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def hostile(response: str, answer: str | None) -> Any:
    match response:
        case "sleep":
            time.sleep(1e6)
        case "loop":
            while True:
                pass
        case "stubborn":
            while True:
                with contextlib.suppress(BaseException):
                    time.sleep(1)
        case "sys.exit":
            sys.exit("bye")
        case "os._exit":
            os._exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancel":
            raise asyncio.CancelledError
        case "huge":
            return 1e308
        case "memory":
            return float(len(bytearray(8 * 1024**3)))
        case "print":
            for _ in range(200):
                print("x" * 10_000)
        case "close":
            os.closerange(0, 64)
        case "talk":
            os.write(1, b'{"rewards": {"": 7.0}}\n')
        case "thread":
            threading.Thread(target=time.sleep, args=(1e6,)).start()
        case "child":
            Path(str(answer)).write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
            time.sleep(1e6)
    return 1.0


async def hostile_later(response: str, answer: str | None) -> Any:
    await asyncio.sleep(0)
    if response == "task exits":

        async def leaves() -> None:
            sys.exit("bye")

        await asyncio.gather(leaves(), asyncio.sleep(0.1))
    if response == "swallow":
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1e6)
    return hostile(response, answer)


def process_id(response: str, answer: str | None) -> int:
    return os.getpid()


def named(response: str, answer: str | None, *, metadata: dict[str, Any], written_tokens: int) -> dict[str, float]:
    return {"level": metadata["level"], "length": written_tokens}

"""Environments for the tests, a good one and one for each fault. Processes of their own import this module."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rft.environments import Step

leaked: list[bytearray] = []


class Counting:
    """Answers each action with its number. Says which process it is and how many episodes that has begun."""

    reusable = True

    def __init__(self, turns: int = 3, closed: str = "") -> None:
        self.turns = turns
        self.closed = closed
        self.episodes = 0

    def reset(self, seed: int, task: dict[str, Any]) -> str:
        self.seed, self.turn = seed, 0
        self.episodes += 1
        return f"seed {seed}, task {task['prompt']}, process {os.getpid()}, episode {self.episodes}"

    def step(self, action: str) -> Step:
        self.turn += 1
        done = self.turn == self.turns
        return Step(f"{self.turn}: {action}", float(self.turn), done, 1.0 if done else None, {"turn": self.turn})

    def close(self) -> None:
        if self.closed:
            Path(self.closed).write_text("closed")


class Once(Counting):
    reusable = False


class FailsToStart(Counting):
    def __init__(self) -> None:
        raise OSError("no such game")


class HangsInReset(Counting):
    def reset(self, seed: int, task: dict[str, Any]) -> str:
        time.sleep(3600)
        return ""


class Faulty(Counting):
    """Does what the action says."""

    def step(self, action: str) -> Any:
        match action:
            case "sleep":
                time.sleep(3600)
            case "hold the interpreter":
                # A call into C that holds the lock, so that no thread of the process runs any more.
                ctypes.PyDLL(None).sleep(3600)
            case "crash":
                ctypes.string_at(0)
            case "exit":
                sys.exit(3)
            case "exit at once":
                print("the last words", flush=True)
                os._exit(7)
            case "raise":
                raise KeyboardInterrupt("by a user")
            case "hog":
                leaked.extend(bytearray(16 * 1024 * 1024) for _ in range(10_000))
            case "leak":
                leaked.append(bytearray(110 * 1024 * 1024))
            case "print":
                print("garbage {" * 100_000)
                os.write(1, b"\xff\xfe not a reply\n")
                sys.stderr.write("more\n")
                subprocess.run(["echo", "a child's garbage"], check=True)
            case "read":
                return Step(f"read {sys.stdin.read()!r}")
            case "giant":
                return Step("x" * 100_000_000)
            case "not a number":
                return Step("", reward=float("nan"))
            case "surrogate":
                return Step("\ud83d")
            case "nothing":
                return None
            case "children":
                # Not only a child: one that runs on when its parent is gone.
                child = subprocess.Popen(["sh", "-c", "sleep 3600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
                assert child.stdout is not None
                return Step(f"{os.getpid()} {child.pid} {child.stdout.readline().strip()}")
            case "thread":
                threading.Thread(target=time.sleep, args=(3600,)).start()
        return super().step(action)

"""Code that blocks the event loop is named and interrupted; if it catches that, the role ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

import pytest

from rft import loop_watchdog
from rft.errors import LoopBlockedError
from rft.event_loop import run_in_loop
from rft.loop_watchdog import LoopWatchdog
from rft.telemetry.activity import role_activity

LIMIT_S = 1.5


def sleeps() -> None:
    time.sleep(1e6)


def nap(seconds: float) -> None:
    time.sleep(seconds)


def loops() -> None:
    while True:
        pass


@pytest.fixture(autouse=True)
def _named_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_watchdog, "NAMED_AFTER_S", 0.5)
    monkeypatch.setattr(loop_watchdog, "INTERRUPT_EVERY_S", 0.5)


@pytest.mark.parametrize("blocks", [sleeps, loops])
def test_what_blocks_the_loop_is_named_and_interrupted(
    blocks: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def workflow() -> None:
        blocks()

    async def main() -> tuple[str, str]:
        with LoopWatchdog(LIMIT_S, "rollout.blocking_s", []) as watchdog:
            failures = []
            for _ in range(2):
                with pytest.raises(LoopBlockedError) as caught:
                    await asyncio.create_task(workflow())
                failures.append(str(caught.value))
            await asyncio.sleep(0.1)
            assert watchdog.blocked == 2
            return failures[0], failures[1]

    with caplog.at_level(logging.WARNING):
        for failure in run_in_loop(main()):
            assert "(rollout.blocking_s)" in failure
            assert f"{blocks.__name__} ({__file__}:" in failure
    assert f"{blocks.__name__} ({__file__}:" in caplog.text


def test_a_loop_that_is_busy_and_answers_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        with LoopWatchdog(LIMIT_S, "rollout.blocking_s", []) as watchdog:
            until = time.monotonic() + 2 * LIMIT_S
            while time.monotonic() < until:
                nap(0.01)
                await asyncio.sleep(0)
            return watchdog.blocked

    assert run_in_loop(main()) == 0


def test_what_catches_its_interruption_ends_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role_activity(), "fatal", None)
    over = threading.Event()

    async def stubborn() -> None:
        while not over.is_set():
            with contextlib.suppress(Exception):
                nap(0.05)

    def wait_for_the_end() -> None:
        until = time.monotonic() + 60
        while role_activity().fatal is None and time.monotonic() < until:
            time.sleep(0.05)
        over.set()

    async def main() -> None:
        with LoopWatchdog(LIMIT_S, "rollout.blocking_s", []):
            await asyncio.create_task(stubborn())

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    run_in_loop(main())
    assert "cannot be interrupted" in (role_activity().fatal or "")
    assert f"nap ({__file__}:" in (role_activity().fatal or "")

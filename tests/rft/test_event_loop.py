"""An event loop ends with its coroutine, whatever other tasks and threads do."""

from __future__ import annotations

import asyncio
import io
import signal
import threading
import time

import pytest

from rft.event_loop import print_tasks, run_in_loop


def test_the_result_or_the_error_of_the_coroutine_comes_back() -> None:
    async def fails() -> None:
        raise KeyError("x")

    assert run_in_loop(asyncio.sleep(0, 7)) == 7
    with pytest.raises(KeyError):
        run_in_loop(fails())


def test_other_tasks_are_cancelled_and_may_tidy_up() -> None:
    tidied = []

    async def other() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            tidied.append(True)

    async def main() -> None:
        tasks.append(asyncio.create_task(other()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    run_in_loop(main())
    assert tidied == [True]


def test_neither_a_task_that_ignores_its_cancellation_nor_a_thread_keeps_the_loop_from_ending() -> None:
    released = threading.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        tasks.append(asyncio.create_task(stubborn()))
        tasks.append(asyncio.create_task(asyncio.to_thread(released.wait)))
        await asyncio.sleep(0.1)
        raise KeyError("the cause")

    tasks: list[asyncio.Task[object]] = []
    began = time.monotonic()
    try:
        with pytest.raises(KeyError, match="the cause"):
            run_in_loop(main(), grace_s=0.2)
        assert time.monotonic() - began < 10
    finally:
        released.set()


@pytest.mark.parametrize("error", [SystemExit("bye"), KeyboardInterrupt()])
def test_a_task_that_leaves_ends_nothing_but_itself(error: BaseException) -> None:
    """``sys.exit()`` in a task leaves the loop, which goes on. A role has a handler for an operator's Ctrl-C."""

    async def leaves() -> None:
        raise error

    async def main() -> int:
        asyncio.get_running_loop().call_soon(lambda: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            await asyncio.gather(leaves(), asyncio.sleep(0.01))
        await asyncio.sleep(0.01)
        return 7

    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        assert run_in_loop(main()) == 7
    finally:
        signal.signal(signal.SIGINT, before)


def test_tasks_say_where_they_await_down_to_the_innermost_coroutine() -> None:
    output = io.StringIO()

    async def inner() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await inner()

    async def main() -> None:
        waits = asyncio.create_task(outer(), name="waits")
        await asyncio.sleep(0)
        await asyncio.to_thread(print_tasks, output)
        waits.cancel()

    run_in_loop(main())
    (line,) = [line for line in output.getvalue().splitlines() if line.startswith("task waits awaits: ")]
    places = [place.split(" (")[0] for place in line.partition(": ")[2].split(" > ")]
    assert places == ["outer", "inner", "wait"]


def test_without_a_loop_there_is_nothing_to_say() -> None:
    output = io.StringIO()
    print_tasks(output)
    assert output.getvalue() == ""

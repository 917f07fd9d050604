"""Environments in real processes: they are reused, kept apart, and each fault of theirs costs one rollout."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rft.config import RolloutConfig
from rft.environments.pool import EnvironmentPool
from rft.errors import ConfigError, RolloutError

HERE = Path(__file__).parent
TASK = {"prompt": "p", "answer": None, "metadata": {}}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@asynccontextmanager
async def open_pool(environment: str, **settings: Any) -> AsyncIterator[EnvironmentPool]:
    config = RolloutConfig(environment=f"faulty_environments:{environment}", **{"environment_spare": 0, **settings})
    pool = EnvironmentPool(config)
    try:
        yield pool
    finally:
        await pool.close()


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a coroutine function a test."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def pid_of(pool: EnvironmentPool, seed: int = 0) -> int:
    async with pool.episode(seed, TASK) as episode:
        return int(episode.messages[0]["content"].split("process ")[1].split(",")[0])


@in_a_loop
async def test_an_episode() -> None:
    async with open_pool("Counting", environment_options={"turns": 2}) as pool, pool.episode(7, TASK) as episode:
        assert episode.messages[0]["role"] == "user"
        assert episode.messages[0]["content"].startswith("seed 7, task p")
        first = await episode.step("ä\n")
        assert (first.messages, first.reward, first.done) == ([{"role": "user", "content": "1: ä\n"}], 1.0, False)
        last = await episode.step("b")
        assert (last.reward, last.done, last.success, last.info) == (2.0, True, 1.0, {"turn": 2})


@in_a_loop
async def test_a_process_is_reused_if_its_environment_allows_it() -> None:
    async with open_pool("Counting") as pool:
        assert len({await pid_of(pool) for _ in range(3)}) == 1
    async with open_pool("Once") as pool:
        pids = [await pid_of(pool) for _ in range(3)]
        assert len(set(pids)) == 3
    assert gone(pids)


@in_a_loop
async def test_rollouts_have_processes_of_their_own_and_wait_for_one_if_there_are_too_many() -> None:
    async with open_pool("Counting", environment_workers=3) as pool:
        together, most = 0, 0
        three = asyncio.Barrier(3)

        async def play(seed: int) -> list[str]:
            nonlocal together, most
            async with pool.episode(seed, TASK) as episode:
                together += 1
                most = max(most, together)
                await three.wait()
                said = [(await episode.step(f"{seed}-{turn}")).messages[0]["content"] for turn in range(3)]
                together -= 1
                return said

        games = await asyncio.gather(*(play(seed) for seed in range(12)))
        assert games == [[f"{turn + 1}: {seed}-{turn}" for turn in range(3)] for seed in range(12)]
        assert most == 3 == pool.processes


@in_a_loop
async def test_processes_stand_ready() -> None:
    async with open_pool("Once", environment_spare=2) as pool:
        await pid_of(pool)
        for _ in range(200):
            if len(pool._idle) == 2:
                break
            await asyncio.sleep(0.05)
        began = time.monotonic()
        await pid_of(pool)
        assert time.monotonic() - began < 0.05


FAULTS = {
    "sleep": "step did not end within 0.5 s (rollout.environment_step_s)",
    "hold the interpreter": "step did not end within 0.5 s (rollout.environment_step_s)",
    "crash": "was ended by SIGSEGV in step",
    "exit": "step raised SystemExit: 3",
    "exit at once": "ended with exit code 7 in step; its last output is 'the last words'",
    "raise": "step raised KeyboardInterrupt: by a user",
    "hog": "step ran out of memory (rollout.environment_memory_mb)",
    "giant": "step: what it returned takes 100,000,096 bytes, the limit is 1,048,576",
    "not a number": "step: what it returned has reward = nan, it must be finite",
    "surrogate": "step: what it returned has an observation that cannot be written as UTF-8",
    "nothing": "step: what it returned is a NoneType",
}


@pytest.mark.parametrize("fault", FAULTS)
@in_a_loop
async def test_a_fault_fails_its_rollout_and_its_process_is_replaced(fault: str) -> None:
    settings = {"environment_step_s": 20.0, "environment_memory_mb": 512}
    if "did not end" in FAULTS[fault]:
        settings["environment_step_s"] = 0.5
    async with open_pool("Faulty", **settings) as pool:
        pid = await pid_of(pool)
        with pytest.raises(RolloutError) as raised:
            async with pool.episode(0, TASK) as episode:
                await episode.step(fault)
        assert str(raised.value).startswith(f"environment 'faulty_environments:Faulty': {FAULTS[fault]}")
        assert gone([pid])
        assert await pid_of(pool) != pid
        assert pool.replaced == 1


@in_a_loop
async def test_a_hang_in_reset_fails_its_rollout() -> None:
    async with open_pool("HangsInReset", environment_reset_s=0.3) as pool:
        with pytest.raises(RolloutError, match=r"reset did not end within 0\.3 s \(rollout\.environment_reset_s\)"):
            async with pool.episode(0, TASK):
                pass


@in_a_loop
async def test_an_environment_that_serves_one_episode_is_closed_after_it(tmp_path: Path) -> None:
    mark = tmp_path / "closed"
    async with open_pool("Once", environment_options={"closed": str(mark)}) as pool:
        async with pool.episode(0, TASK):
            pass
        for _ in range(100):
            if mark.exists():
                break
            await asyncio.sleep(0.05)
    assert mark.exists()


@in_a_loop
async def test_options_that_are_no_json_are_refused() -> None:
    options = {"environment_options": {"odds": [float("inf")]}}
    async with open_pool("Counting", **options) as pool:
        with pytest.raises(ConfigError, match="its start: the request cannot be written as JSON"):
            await pool.start()


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ("FailsToStart", "its start raised OSError: no such game"),
        ("Missing", "has no 'Missing'"),
        ("Step", "TypeError"),
    ],
)
@in_a_loop
async def test_an_environment_that_does_not_start_fails_each_rollout_that_asks(environment: str, problem: str) -> None:
    async with open_pool(environment, environment_spare=2, environment_workers=2) as pool:

        async def play() -> None:
            async with pool.episode(0, TASK):
                pass

        results = await asyncio.gather(*(play() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, RolloutError) and problem in str(result) for result in results), results
        assert pool.processes == 0


@in_a_loop
async def test_what_an_environment_prints_is_neither_a_reply_nor_on_the_screen(capfd: pytest.CaptureFixture) -> None:
    async with open_pool("Faulty") as pool, pool.episode(0, TASK) as episode:
        for turn in range(2):
            assert (await episode.step("print")).messages[0]["content"] == f"{turn + 1}: print"
        assert (await episode.step("read")).messages[0]["content"] == "read ''"
    assert capfd.readouterr() == ("", "")


@in_a_loop
async def test_a_process_that_leaks_is_replaced_between_two_episodes() -> None:
    async with open_pool("Faulty", environment_memory_mb=256) as pool:
        pids = []
        for _ in range(3):
            pids.append(await pid_of(pool))
            async with pool.episode(0, TASK) as episode:
                await episode.step("leak")
        assert len(set(pids)) >= 2
        assert pool.replaced >= 1


@in_a_loop
async def test_a_canceled_rollout_leaves_no_busy_process() -> None:
    async with open_pool("Faulty") as pool:
        pid = await pid_of(pool)

        async def play() -> None:
            async with pool.episode(0, TASK) as episode:
                await episode.step("sleep")

        playing = asyncio.create_task(play())
        await asyncio.sleep(0.2)
        playing.cancel()
        await asyncio.wait([playing])
        assert playing.cancelled()
        assert gone([pid])
        assert await pid_of(pool) != pid


@in_a_loop
async def test_a_rollout_that_gives_up_waiting_takes_no_process() -> None:
    async with open_pool("Counting", environment_workers=1) as pool:
        async with pool.episode(0, TASK):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await pid_of(pool)
        await pid_of(pool)
        assert pool.processes == 1


@in_a_loop
async def test_all_processes_end_with_the_pool_and_environments_close(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    async with open_pool("Faulty", environment_options={"closed": str(closed)}) as pool:
        async with pool.episode(0, TASK) as episode:
            pids = [int(pid) for pid in (await episode.step("children")).messages[0]["content"].split()]
            await episode.step("thread")
        assert all(map(alive, pids))
    assert gone(pids)
    assert closed.read_text() == "closed"


EXPLORER = """
import asyncio, sys, time
from rft.config import RolloutConfig
from rft.environments.pool import EnvironmentPool

async def main():
    pool = EnvironmentPool(RolloutConfig(environment="faulty_environments:Faulty", environment_spare=1))
    async with pool.episode(0, {"prompt": "p", "answer": None, "metadata": {}}) as episode:
        print((await episode.step("children")).messages[0]["content"], flush=True)
        await episode.step(sys.argv[1])

asyncio.run(main())
"""


@pytest.fixture(params=["sleep", "hold the interpreter"])
def explorer(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that has an environment in the middle of a step, with children of its own."""
    root = str(HERE.parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", EXPLORER, request.param],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, str(HERE)])},
    )
    yield process
    process.kill()
    process.communicate()


def test_all_processes_of_environments_end_with_a_killed_explorer(explorer: subprocess.Popen[str]) -> None:
    assert explorer.stdout is not None
    pids = [int(pid) for pid in explorer.stdout.readline().split()]
    assert len(pids) == 3
    time.sleep(0.3)
    assert all(map(alive, pids))
    explorer.send_signal(signal.SIGKILL)
    assert gone(pids)

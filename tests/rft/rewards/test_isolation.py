"""A reward function that hangs, dies, prints or takes memory fails its sample, is named, and does no other harm."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_rewards import process_id
from test_scorer import experience

from rft.config import ProcessorConfig
from rft.errors import ConfigError, RewardError
from rft.rewards.functions import Sample
from rft.rewards.isolation import CallLimits, IsolatedFunctions, open_scorer

DEADLINE_S = 3.0
"""Short for a test, long for a busy machine: a function that answers does so in microseconds."""
ROOT = Path(__file__).parents[3]


def processor(*functions: str, **settings: object) -> ProcessorConfig:
    terms = [{"function": f"hostile_rewards:{name}"} for name in functions]
    return ProcessorConfig.model_validate({"rewards": terms, "reward_deadline_s": DEADLINE_S, **settings})


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedFunctions]:
    config = processor("hostile", "hostile_later", "process_id")
    functions = IsolatedFunctions(CallLimits(DEADLINE_S, 1024), config.rewards)
    yield functions
    functions.close()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ("loop", r"hostile did not end within 3 s \(processor.reward_deadline_s\)"),
        ("stubborn", "did not end within 3 s"),
        ("sys.exit", "raised SystemExit: bye"),
        ("os._exit", "ended with exit code 3"),
        ("interrupt", "raised KeyboardInterrupt"),
        ("cancel", "raised CancelledError"),
        ("huge", r"returned 1e\+308; rewards are finite"),
        ("memory", r"raised MemoryError.*\(processor.reward_memory_mb\)"),
        ("close", "ended with exit code|closed its output|ended by"),
    ],
)
def test_a_function_that_misbehaves_fails_its_sample_and_the_next_is_scored(
    isolated: IsolatedFunctions, response: str, message: str
) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        isolated.functions[0](Sample(response, "a"))
    assert "hostile" in str(caught.value)
    assert isolated.functions[0](Sample("well", "a")) == {"": 1.0}


@pytest.mark.parametrize("response", ["print", "talk", "thread"])
def test_what_a_function_prints_or_leaves_behind_is_not_taken_for_its_reward(
    isolated: IsolatedFunctions, response: str
) -> None:
    assert isolated.functions[0](Sample(response, "a")) == {"": 1.0}
    assert isolated.functions[0](Sample("well", "a")) == {"": 1.0}


@pytest.mark.parametrize(("response", "message"), [("task exits", "SystemExit"), ("swallow", "did not end within")])
def test_an_async_function_is_no_better(isolated: IsolatedFunctions, response: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        isolated.functions[1](Sample(response, "a"))
    assert isolated.functions[1](Sample("well", "a")) == {"": 1.0}


def test_functions_share_a_process_that_is_not_ours(isolated: IsolatedFunctions) -> None:
    first, second = (isolated.functions[2](Sample("x")) for _ in range(2))
    assert first == second != {"": process_id("", None)}


def test_what_a_hanging_function_has_started_ends_with_it(isolated: IsolatedFunctions, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="did not end within"):
        isolated.functions[0](Sample("child", str(tmp_path / "pid")))
    until = time.monotonic() + 60
    while Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_slow_call_is_named_while_it_runs(isolated: IsolatedFunctions, caplog: pytest.LogCaptureFixture) -> None:
    isolated._slow_calls = 0  # those of other tests
    with caplog.at_level(logging.WARNING), pytest.raises(RewardError):
        isolated.functions[0](Sample("sleep", "a"))
    assert "hostile_rewards:hostile has run for 2 s on one sample" in caplog.text


def test_the_scorer_sees_no_difference() -> None:
    score = open_scorer(processor("named", "hostile"))
    assert score(experience(metadata='{"level": 4}')) == (
        8.0,
        {"hostile_rewards:named.level": 4.0, "hostile_rewards:named.length": 3.0, "hostile_rewards:hostile": 1.0},
    )


def test_a_pattern_that_backtracks_without_end_fails_its_sample() -> None:
    terms = [{"function": "format", "options": {"pattern": "(a+)+b"}}, {"function": "exact_match"}]
    score = open_scorer(ProcessorConfig.model_validate({"rewards": terms, "reward_deadline_s": DEADLINE_S}))
    with pytest.raises(RewardError, match="format did not end within 3 s"):
        score(experience("a" * 64))
    assert score(experience("aab", "aab"))[0] == 2.0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("hostile_module:anything", "importing 'hostile_module' failed: SystemExit: not today"),
        ("hostile_rewards:absent", "has no 'absent'"),
        ("hostile_rewards:named", r"unexpected keyword argument 'x'"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_a_configuration_error(function: str, message: str) -> None:
    terms = [{"function": function, "options": {"x": 1}}]
    with pytest.raises(ConfigError, match=message):
        open_scorer(ProcessorConfig.model_validate({"rewards": terms}))


def test_without_isolation_functions_run_in_this_process() -> None:
    score = open_scorer(processor("process_id", reward_isolation="none"))
    assert score(experience())[0] == os.getpid()


def test_the_process_ends_with_ours_even_if_that_is_killed_while_a_function_hangs(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from rft.config import ProcessorConfig
from rft.rewards.functions import Sample
from rft.rewards.isolation import CallLimits, IsolatedFunctions
functions = ["hostile_rewards:process_id", "hostile_rewards:hostile"]
config = ProcessorConfig.model_validate({{"rewards": [{{"function": name}} for name in functions]}})
isolated = IsolatedFunctions(CallLimits(10, 1024), config.rewards)
print(int(isolated.functions[0](Sample("x"))[""]), flush=True)
isolated.functions[1](Sample("sleep"))
"""
    role = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert role.stdout is not None
    worker = int(role.stdout.readline())
    time.sleep(0.5)
    role.kill()
    role.communicate()
    until = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and _state(worker) != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"

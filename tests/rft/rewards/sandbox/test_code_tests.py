"""``code_tests``: the code of a response against the tests of its task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rft.config import RewarderConfig
from rft.errors import ConfigError, RewardError
from rft.rewards.code_tests import find_code, find_tests
from rft.rewards.functions import Sample
from rft.rewards.judgement import Judgement
from rft.rewards.judges import open_judge
from rft.rewards.sandbox import check_sandbox

DOUBLE = """Sure:
```python
def double(x):
    return 2 * x

if __name__ == '__main__':
    print(double(int(input())))
```
Done."""


def sandbox_fault() -> str | None:
    try:
        asyncio.run(check_sandbox())
    except ConfigError as error:
        return str(error)
    return None


FAULT = sandbox_fault()


def judge(response: str, tests: Any, **options: Any) -> Judgement:
    if FAULT is not None:
        pytest.skip(FAULT)
    judge = open_judge("t", RewarderConfig(function="code_tests", options=options))
    (found,) = asyncio.run(judge.judge([Sample(response, None, "", {"tests": tests})]))
    return found


def test_pairs_of_input_and_output() -> None:
    pairs = [{"input": "3\n", "output": "6"}, {"input": "5\n", "output": "10 \n\n"}, {"input": "1\n", "output": "3"}]
    assert judge(DOUBLE, pairs[:2]).reward == 1
    half = judge(DOUBLE, pairs, score="share")
    assert half.reward == pytest.approx(2 / 3)
    assert half.details["reason"] == "test 3: its output is another one: '2\\n'"
    assert judge(DOUBLE, pairs).reward == 0


def test_statements_and_the_usual_tricks() -> None:
    tests = ["assert double(2) == 4", "assert double('a') == 'aa'"]
    code = "```\ndef double(x): return 2 * x\n```"
    assert judge(code, tests).details == {"passed": 2, "tests": 2}
    for trick in ("import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "print('ok'); exit()"):
        assert judge(f"```python\n{trick}\n```", tests).reward == 0
    endless = judge("```python\nwhile True: pass\n```", tests, wall_s=1)
    assert endless.details["reason"] == "test 1: ended for too much time"
    assert judge("no code here", tests).details == {"reason": "the response holds no code"}


def test_the_last_block_of_python_counts() -> None:
    assert find_code("```python\na\n```\n```python\nb\n```\n```text\nc\n```") == "b\n"
    assert find_code("```\nplain\n```") == "plain\n"
    assert find_code("```bash\nls\n```") is None
    assert find_code("```python\nnever closed") is None


def test_tests_that_are_none_are_named() -> None:
    assert find_tests(Sample("", '["assert x"]'), "answer") == ["assert x"]
    assert find_tests(Sample("", "assert x"), "answer") == ["assert x"]
    for wrong in (None, [], {}, 5, [5], [{"input": "1"}], ["assert x"] * 1000):
        with pytest.raises(RewardError, match="tests"):
            find_tests(Sample("", None, "", {"tests": wrong}), "tests")
    with pytest.raises(ConfigError, match="options of code_tests are tests, score"):
        open_judge("t", RewarderConfig(function="code_tests", options={"memory": 5}))

"""A Python function becomes a tool: schema, checked arguments, threads, and errors that say what is wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import sys
import threading
import time
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from rft.errors import ConfigError
from rft.workflows.messages import ToolCall
from rft.workflows.tools.base import Limits, ToolError, ToolSet
from rft.workflows.tools.execution import Answer, run_calls
from rft.workflows.tools.functions import FunctionTool, load_function
from rft.workflows.tools.threads import MAX_THREADS


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


@dataclasses.dataclass
class Place:
    city: str
    zip: str = ""


class Range(BaseModel):
    """A range of days."""

    first: int
    last: int


def weather(
    place: Place,
    days: Range,
    unit: Unit = Unit.CELSIUS,
    detail: Literal["short", "long"] = "short",
    tags: Optional[list[str]] = None,  # noqa: UP045
    limits: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Tell the weather.

    It knows
    all cities.

    Args:
        place: Where.
        days (Range): Which days,
            counted from today.
        unit: Scale of temperatures.

    Returns:
        tags: not an argument.
    """
    return {"city": place.city, "zip": place.zip, "unit": unit.value, "last": days.last, "tags": tags, "detail": detail}


async def slow_echo(text: str, seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return text


def run(function: Any, /, timeout_s: float = 5.0, answer_chars: int = 8000, **arguments: Any) -> Answer:
    return run_all([function], [(function.__name__, arguments)], Limits(timeout_s, answer_chars))[0]


def run_all(functions: list[Any], calls: list[tuple[str, dict[str, Any]]], limits: Limits) -> list[Answer]:
    tools = ToolSet([FunctionTool(function) for function in functions], limits=limits)
    listed = [ToolCall(str(number), name, arguments) for number, (name, arguments) in enumerate(calls)]
    return asyncio.run(run_calls(tools, listed))


def test_schema_of_a_signature() -> None:
    tool = FunctionTool(weather)
    schema = dict(tool.parameters)
    assert tool.name == "weather"
    assert tool.description == "Tell the weather. It knows all cities."
    assert schema["required"] == ["place", "days"]
    properties = schema["properties"]
    assert list(properties) == ["place", "days", "unit", "detail", "tags", "limits"]
    assert properties["days"]["description"] == "Which days, counted from today."
    assert properties["unit"]["description"] == "Scale of temperatures."
    assert properties["detail"] == {"default": "short", "enum": ["short", "long"], "type": "string"}
    assert properties["tags"]["anyOf"] == [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}]
    assert schema["$defs"]["Unit"] == {"enum": ["celsius", "kelvin"], "type": "string"}
    assert schema["$defs"]["Place"]["required"] == ["city"]
    assert "title" not in schema["$defs"]["Range"]
    json.dumps(ToolSet([tool]).schemas)


def test_a_parameter_may_be_called_as_pydantic_calls_its_own() -> None:
    def store(schema: str, model_config: int, json: bool, _private: str = "p", title: str = "t") -> str:
        return f"{schema} {model_config} {json} {_private} {title}"

    assert list(FunctionTool(store).parameters["properties"]) == ["schema", "model_config", "json", "_private", "title"]
    assert run(store, schema="s", model_config=1, json=True, _private="q").text == "s 1 True q t"


def test_arguments_are_checked_and_converted() -> None:
    answer = run(weather, place={"city": "Paris", "zip": 75001}, days={"first": "1", "last": 2.0}, unit="kelvin")
    expected = {"city": "Paris", "zip": "75001", "unit": "kelvin", "last": 2, "tags": None, "detail": "short"}
    assert (json.loads(answer.text), answer.failed) == (expected, False)
    wrong = run(weather, place={"city": "Paris"}, unit="rankine", days={"first": 1}, color="red")
    assert wrong.failed
    for part in ("days.last: Field required", "unit: Input should be 'celsius' or 'kelvin'", "color: Extra inputs",
                 "It takes place, days, unit (optional)"):  # fmt: skip
        assert part in wrong.text


def test_texts_of_a_format_without_types_are_read_as_their_schema_says() -> None:
    answer = run(weather, place='{"city": "12"}', days='{"first": 1, "last": 2}', tags='["a"]', detail="long")
    assert json.loads(answer.text)["tags"] == ["a"]

    def add(a: int, b: float | None, word: str, flag: bool = False) -> str:
        return f"{a!r} {b!r} {word!r} {flag!r}"

    assert run(add, a="3", b="2.5", word="4", flag="True").text == "3 2.5 '4' True"
    assert run(add, a="3", b="None", word="null").text == "3 None 'null' False"
    assert "a: Input should be a valid integer" in run(add, a="three", b="1", word="").text


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def f(*values: int): ...", "the parameter *values has no name of its own"),
        ("def f(**values: int): ...", "the parameter **values takes any name"),
        ("def f(a: int, /): ...", "can only be given by position"),
        ("def f(a): ...", "the parameter a has no type: annotate it, as in a: str"),
        ("def f(a: 'Missing'): ...", "name 'Missing' is not defined"),
        ("import threading\ndef f(a: threading.Lock): ...", "a type that JSON cannot give"),
        ("def f(a: 'sys.exit()'): ...", "its signature cannot be read"),
        ("f = 3", "is a int, not a function"),
    ],
)
def test_what_cannot_be_a_tool_is_an_error_of_the_configuration(
    source: str, problem: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"tool_module_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(f"import sys\n{source}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"rollout\.tools = ") as raised:
        load_function(f"{name}:f")
    assert problem in str(raised.value)
    sys.modules.pop(name, None)


def test_two_tools_of_one_name_are_an_error() -> None:
    with pytest.raises(ConfigError, match="two tools have the name 'weather'"):
        ToolSet([FunctionTool(weather), FunctionTool(weather)])


def test_calls_run_in_parallel_and_answers_keep_their_order() -> None:
    together = threading.Barrier(3, timeout=5)

    def meet(number: int) -> int:
        together.wait()
        return number

    answers = run_all([meet], [("meet", {"number": number}) for number in range(3)], Limits())
    assert [(answer.text, answer.failed) for answer in answers] == [("0", False), ("1", False), ("2", False)]
    began = time.monotonic()
    run_all([slow_echo], [("slow_echo", {"text": "a", "seconds": 0.2})] * 20, Limits())
    assert time.monotonic() - began < 2


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_whatever_a_tool_raises_becomes_its_answer() -> None:
    def exits() -> str:
        sys.exit(3)

    def interrupts() -> str:
        raise KeyboardInterrupt

    def stops() -> str:
        return str(next(iter([])))

    def hostile() -> str:
        raise HostileError

    def unprintable() -> object:
        class Unprintable:
            def __str__(self) -> str:
                raise ValueError("no text")

        return Unprintable()

    async def async_exits() -> str:
        sys.exit(3)

    async def cancels() -> str:
        raise asyncio.CancelledError

    def surrogate() -> str:
        return "a\ud83db"

    def fine() -> str:
        return "fine"

    functions = [exits, interrupts, stops, hostile, unprintable, async_exits, cancels, surrogate, fine]
    calls: list[tuple[str, dict[str, Any]]] = [(function.__name__, {}) for function in functions]
    answers = run_all(functions, [*calls, ("fein", {})], Limits())
    for answer in answers[:7]:
        assert answer.failed, answer
        assert answer.text.startswith("Error: ")
    assert "SystemExit" in answers[0].text
    assert answers[7].text == "a?b"
    assert (answers[8].text, answers[8].failed) == ("fine", False)
    assert answers[9].failed
    assert "there is no tool 'fein'. Did you mean fine?" in answers[9].text


def test_a_tool_that_hangs_costs_its_deadline() -> None:
    release = threading.Event()

    def hangs() -> str:
        release.wait(20)
        return "late"

    async def ignores() -> str:
        while not release.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                release.set()
        return "late"

    began = time.monotonic()
    answers = run_all([hangs, ignores, slow_echo], [("hangs", {}), ("ignores", {}), ("slow_echo", {"text": "a"})],
                      Limits(timeout_s=0.3))  # fmt: skip
    release.set()
    assert time.monotonic() - began < 3
    assert [answer.text for answer in answers] == [
        "Error: hangs did not answer within 0.3 s.",
        "Error: ignores did not answer within 0.3 s.",
        "a",
    ]
    assert [answer.failed for answer in answers] == [True, True, False]


def test_the_threads_of_a_tool_that_hangs_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    release, running = threading.Event(), 0

    def hangs() -> str:
        nonlocal running
        running += 1
        release.wait(20)
        return "late"

    def fine() -> str:
        return "fine"

    calls: list[tuple[str, dict[str, Any]]] = [*[("hangs", {})] * (MAX_THREADS + 10), ("fine", {})]
    tools = ToolSet([FunctionTool(hangs), FunctionTool(fine)], limits=Limits(timeout_s=0.5))

    async def twice() -> list[Answer]:
        answers = await run_calls(tools, [ToolCall("", name, arguments) for name, arguments in calls])
        release.set()
        await asyncio.sleep(0.2)
        return [*answers, *await run_calls(tools, [ToolCall("", "hangs", {})])]

    *hung, last, again = asyncio.run(twice())
    assert all(answer.failed for answer in hung)
    assert (last.text, again.text) == ("fine", "late")
    assert running == MAX_THREADS + 1
    assert f"calls find no thread; {MAX_THREADS} earlier ones still run" in caplog.text


def test_answers_are_cut() -> None:
    def long() -> str:
        return "x" * 50_000

    answer = run(long, answer_chars=100)
    assert answer.text.startswith("x" * 100 + "\n[cut: 50000 characters, 100 are shown]")
    assert len(answer.text) < 160


def test_a_cancelled_rollout_cancels_its_calls() -> None:
    ended = []

    async def waits() -> str:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)
        return ""

    async def main() -> None:
        task = asyncio.create_task(run_calls(ToolSet([FunctionTool(waits)]), [ToolCall("", "waits", {})]))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert ended == [True]


def test_an_annotated_parameter_keeps_its_bounds() -> None:
    def roll(sides: Annotated[int, Field(ge=2, description="of the die")]) -> int:
        return sides

    assert FunctionTool(roll).parameters["properties"]["sides"] == {
        "description": "of the die",
        "minimum": 2,
        "type": "integer",
    }
    assert "greater than or equal to 2" in run(roll, sides=1).text
    with pytest.raises(ToolError, match="wrong arguments for roll"):
        asyncio.run(FunctionTool(roll).call({}))

"""Tasks come from reasoning-gym, JSONL and the user's functions; an error names what is wrong with a source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rft.config import Config
from rft.errors import ConfigError
from rft.tasks import open_sources
from rft.tasks.base import make_item


def configure(seed: int = 0, eval_tasks: int = 0, **tasks: Any) -> Config:
    return Config.model_validate({"run": {"seed": seed}, "tasks": tasks, "eval": {"tasks": eval_tasks}})


def my_tasks(seed: int, count: int = 5) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"question": f"{seed}+{number}", "answer": seed + number, "level": number}


def broken_tasks(seed: int) -> Iterator[dict[str, Any]]:
    yield {"question": "fine"}
    yield {"question": seed / 0}


def not_tasks(seed: int) -> int:
    return seed


def strings(seed: int) -> list[str]:
    return ["one", "two"]


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [{"question": f"{n}+1", "answer": n + 1, "level": n % 3} for n in range(10)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return path


def test_jsonl_gives_question_answer_and_the_rest_as_metadata(jsonl: Path) -> None:
    train = open_sources(configure(source=f"jsonl:{jsonl}", order="sequential")).train
    assert len(train) == 10
    item = train[4]
    assert (item.question, item.answer, dict(item.metadata), item.prompt) == ("4+1", "5", {"level": 1}, "4+1")


def test_jsonl_fields_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "math.jsonl"
    path.write_text('{"problem": "1+1", "solution": "2"}\n')
    options = {"question_field": "problem", "answer_field": "solution"}
    item = open_sources(configure(source=f"jsonl:{path}", options=options)).train[0]
    assert (item.question, item.answer) == ("1+1", "2")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json}", "is not JSON"),
        (b'["question"]', "must be a JSON object, found a list"),
        (b'{"answer": "2"}', "has no field 'question'; it has answer"),
        (b'{"question": 3}', "'question' must be a text, found 3"),
        (b'{"question": ""}', "'question' must be a text"),
        (b'{"question": "q", "answer": [1]}', "'answer' must be a text, a number or absent"),
        (b'{"question": "q", "x": NaN}', "cannot be written as JSON"),
        (b'{"question": "\xff"}', "is not JSON"),
        (b'{"question": "ab\\ud83d"}', "the prompt cannot be written as UTF-8: a lone surrogate.*character 2"),
        (b'{"question": "q", "answer": "\\udc00"}', "'answer' cannot be written as UTF-8"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_jsonl_errors_name_the_file_and_the_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"question": "q"}\n\n' + line + b'\n{"question": "r"}\n')
    with pytest.raises(ConfigError, match=message) as caught:
        open_sources(configure(source=f"jsonl:{path}"))
    assert str(caught.value).startswith(f"{path}:3: ")


def test_a_missing_file_and_an_empty_one_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        open_sources(configure(source=f"jsonl:{tmp_path}/none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        open_sources(configure(source=f"jsonl:{tmp_path}/empty.jsonl"))


def test_an_option_that_a_source_does_not_take_is_refused(jsonl: Path) -> None:
    with pytest.raises(ConfigError, match="takes no 'column'; it takes question_field, answer_field"):
        open_sources(configure(source=f"jsonl:{jsonl}", options={"column": "x"}))
    with pytest.raises(ConfigError, match="it takes min_word_len, max_word_len"):
        open_sources(configure(options={"word_length": 3}))
    with pytest.raises(ConfigError, match="'seed' is set by us"):
        open_sources(configure(options={"seed": 3}))


def test_a_users_source_is_one_function() -> None:
    name = f"{__name__}:my_tasks"
    train = open_sources(configure(seed=7, source=name, options={"count": 3}, order="sequential")).train
    assert len(train) == 3
    assert (train[2].question, train[2].answer, dict(train[2].metadata)) == ("7+2", "9", {"level": 2})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken_tasks", "raised ZeroDivisionError"),
        ("not_tasks", "returned a int, must be an iterable of dicts"),
        ("strings", "item 0 is a str, must be a dict"),
    ],
)
def test_a_users_source_that_is_broken_is_named(function: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_sources(configure(source=f"{__name__}:{function}"))
    assert function in str(caught.value)


def test_reasoning_gym_metadata_can_be_used_in_the_prompt() -> None:
    config = configure(options={"min_word_len": 3, "max_word_len": 6}, prompt_template="{word}>")
    train = open_sources(config).train
    for number in range(50):
        item = train[number]
        assert item.prompt == item.metadata["word"] + ">"
        assert item.answer == item.metadata["word"][::-1]
        assert 3 <= len(item.metadata["word"]) <= 6
        json.dumps(dict(item.metadata))


@pytest.mark.parametrize(
    ("template", "message"),
    [("{wrd}>", "KeyError: 'wrd'; its fields are .*word"), ("{}", "does not fit"), ("{", "does not fit")],
)
def test_the_error_for_a_template_that_does_not_fit_lists_the_fields(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_sources(configure(prompt_template=template))


def test_the_error_for_an_unknown_dataset_or_source_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean spell_backward"):
        open_sources(configure(source="reasoning_gym:spell_backwards"))
    known = r"choose reasoning_gym:<dataset>, jsonl:<file>, hf:<owner>/<name>, import:<name>, environment or package"
    with pytest.raises(ConfigError, match=known):
        open_sources(configure(source="gsm8k"))


def test_an_answer_never_reaches_the_prompt_through_the_template() -> None:
    with pytest.raises(ConfigError, match="KeyError: 'answer'"):
        make_item({"question": "q", "answer": "secret"}, "{question} {answer}", "here")


def test_values_that_json_cannot_hold_become_text_in_metadata() -> None:
    item = make_item({"question": "q", "metadata": {"path": Path("a"), "pair": (1, 2)}}, "{question}", "here")
    assert dict(item.metadata) == {"path": "a", "pair": [1, 2]}

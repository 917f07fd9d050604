"""Tests of filter expressions: what they mean, what they refuse, and that errors name the position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selected_events import selected_event

from consumers.replay import SelectionError
from consumers.replay.filters import compile_filter


@pytest.mark.parametrize(
    "text",
    [
        "reward > 0.25 and reward <= 0.5",
        "0.25 < reward < 1",
        'split == "train" and not verdict == "filtered"',
        '"ell" in response and "x" not in response',
        "number in (7, 8) or number in [1]",
        "sample * 2 + 1 == 5 and 7 // 2 == 3 and number % 4 == 3 and -sample == -2",
        "rewards.exact_match == 0.5 and rewards.other is None",
        'metadata.level == 3 and metadata.deep.word == "w" and metadata.missing == None',
        "oldest_version == 4 and newest_version == 4",
        "total_tokens > written_tokens",
        "answer == None and cause is None and given_reward != 1",
        "experience.reward is None and experience.number == number",
        "partition == 0 and offset == 30 and timestamp_ms > 10",
        "reward == recorded_reward",
        'not answer in "abc"',
        '(number == 7\n and sample == 2)',
    ],
)  # fmt: skip
def test_an_event_is_selected_if_the_expression_is_true(text: str) -> None:
    event = selected_event(
        7, 2, version=4, reward=0.5, response="hello", rewards={"exact_match": 0.5},
        metadata='{"level": 3, "deep": {"word": "w"}}',
    )  # fmt: skip
    assert compile_filter(text)(event) is True
    assert compile_filter(f"not ({text})")(event) is False


@pytest.mark.parametrize(
    "text", ["answer > 1", "answer < 1", "rewards.x >= 0", "metadata.a + 1 > 0", "1 in metadata.a"]
)
def test_a_value_that_an_event_does_not_have_is_neither_larger_nor_smaller(text: str) -> None:
    assert compile_filter(text)(selected_event()) is False


@pytest.mark.parametrize(
    ("text", "character", "message"),
    [
        ("reward > ", 9, "invalid syntax"),
        ("reward > 1 and len(response) > 3", 16, "a call"),
        ("responze == 1", 1, "there is no field responze"),
        ('"é" == response and nope', 21, "no field nope"),
        ("response.upper == 1", 1, "no field response.upper"),
        ("rewards > 1", 1, "name a part of it: rewards.<name>"),
        ("tokens == 1", 1, "no field tokens"),
        ("().__class__ == 1", 1, "only a field's name"),
        ("[x for x in answer]", 1, "a comprehension"),
        ("response[0] == 1", 1, "a subscript"),
        ("2 ** 9 == 1", 1, "BinOp cannot be used"),
        ("(lambda: 1)", 2, "a lambda"),
        ("b'x' == response", 1, "Constant cannot be used"),
    ],
)
def test_an_invalid_expression_is_refused_with_its_position(text: str, character: int, message: str) -> None:
    with pytest.raises(SelectionError) as caught:
        compile_filter(text)
    assert message in str(caught.value)
    assert f"character {character}" in str(caught.value)
    pointer = str(caught.value).splitlines()[-1]
    assert pointer == " " * (character + 1) + "^"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reward == 1 or response > 1", "character 16: with 'r' and 1"),
        ("response + 1 == 2", "character 1: 'r' and 1 are not both numbers"),
        ("response * 1000000000 == 2", "not both numbers"),
        ("1 / sample > 0", "character 1: with 1 and 0: division by zero"),
        ("1 in reward", "character 1"),
    ],
)
def test_values_that_cannot_be_compared_are_an_error_with_its_position(text: str, message: str) -> None:
    with pytest.raises(SelectionError) as caught:
        compile_filter(text)(selected_event(reward=0.0))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["(" * 300 + "1" + ")" * 300, "not " * 200 + "True", "1" * 20_000, "1+" * 4000 + "1", "\0"]
)
def test_an_expression_that_is_too_long_or_too_deep_is_refused(text: str) -> None:
    with pytest.raises(SelectionError):
        compile_filter(text)


@given(st.text(max_size=60))
def test_every_text_is_compiled_or_refused_with_our_error(text: str) -> None:
    try:
        found = compile_filter(text)(selected_event())
    except SelectionError:
        return
    assert isinstance(found, bool)


_NUMBERS = st.sampled_from(["reward", "sample", "number", "2", "0.5", "-1"])
_TESTS = st.builds("{} {} {}".format, _NUMBERS, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), _NUMBERS)
_EXPRESSIONS = st.recursive(
    _TESTS,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("(not {})".format, inner)
    ),
    max_leaves=12,
)


@given(_EXPRESSIONS, st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]))
def test_an_expression_means_what_it_means_in_python(text: str, number: int, sample: int, reward: float) -> None:
    event = selected_event(number, sample, reward=reward)
    expected = eval(text, {"__builtins__": {}}, {"reward": reward, "number": number, "sample": sample})
    assert compile_filter(text)(event) is expected

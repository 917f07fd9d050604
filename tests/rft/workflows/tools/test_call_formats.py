"""Each format gives the calls that its models write, says what is wrong with the others, and fails on no text."""

from __future__ import annotations

import json
import time
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.config import RolloutConfig
from rft.errors import ConfigError
from rft.workflows.messages import Reply
from rft.workflows.tools.descriptions import EXAMPLES
from rft.workflows.tools.formats import deepseek
from rft.workflows.tools.formats.findings import MAX_CALLS
from rft.workflows.tools.formats.parsers import AUTO, FORMATS, NO_CALLS, choose_format, detect_format, find_parser
from rft.workflows.tools.formats.thinking import END_TOKENS

CALL, SEP, END = deepseek.CALL, deepseek.SEPARATOR, deepseek.CALL_END
PARIS = ("weather", {"city": "Paris", "days": 2})
SUM = ("add", {"a": 1, "b": [2.5, None, True]})
TEXT_PARIS = ("weather", {"city": "Paris", "days": "2"})
QWEN_XML = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
)


def parse(name: str, text: str) -> Reply:
    return find_parser(name)(text)


def calls(reply: Reply) -> list[tuple[str, Any]]:
    return [(call.name, call.arguments) for call in reply.tool_calls]


def tagged(name: str, arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize(
    ("name", "text", "content", "expected"),
    [
        ("hermes", tagged(*PARIS), "", [PARIS]),
        ("hermes", f"Let me see.\n{tagged(*PARIS)}\n{tagged(*SUM)}<|im_end|>", "Let me see.", [PARIS, SUM]),
        ("hermes", tagged(*PARIS).removesuffix("\n</tool_call>"), "", [PARIS]),
        ("hermes", tagged("f", {"t": "</tool_call><tool_call>"}), "", [("f", {"t": "</tool_call><tool_call>"})]),
        ("hermes", tagged("f", json.dumps({"a": 1})), "", [("f", {"a": 1})]),
        ("hermes", tagged("f", {"t": "a\nb"}).replace("\\n", "\n"), "", [("f", {"t": "a\nb"})]),
        ("hermes", '<tool_call>{"name": "now"}</tool_call>', "", [("now", {})]),
        ("hermes", "It is 3 <tools>.", "It is 3 <tools>.", []),
        ("qwen3_coder", f"So:\n{QWEN_XML}", "So:", [TEXT_PARIS]),
        ("qwen3_coder", f"{QWEN_XML}\n{QWEN_XML}", "", [TEXT_PARIS, TEXT_PARIS]),
        ("qwen3_coder", QWEN_XML.replace("</parameter>\n", ""), "", [TEXT_PARIS]),
        ("qwen3_coder", "<function=f><parameter=code>\nif a:\n    b()\n</parameter></function>", "",
         [("f", {"code": "if a:\n    b()"})]),
        ("llama_json", '{"name": "weather", "parameters": {"city": "Paris", "days": 2}}<|eom_id|>', "", [PARIS]),
        ("llama_json", '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris", "days": 2}}', "", [PARIS]),
        ("llama_json", '{"type": "function", "name": "a", "parameters": {}}; {"name": "b", "parameters": {"x": 1}}', "",
         [("a", {}), ("b", {"x": 1})]),
        ("llama_json", '{"type": "function", "function": {"name": "a", "parameters": {"x": 1}}}', "",
         [("a", {"x": 1})]),
        ("llama_json", '<|python_tag|>brave_search.call(query="news")', "", [("brave_search", {"query": "news"})]),
        ("llama_json", '{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 36}', []),
        ("llama_json", "{not JSON}", "{not JSON}", []),
        ("llama_list", "[weather(city='Paris', days=2), add(a=1, b=[2.5, None, True])]", "", [PARIS, SUM]),
        ("llama_list", '<|python_start|>[f(x="a\\"b\\n", y={"k": (1, -2e3)})]<|python_end|>', "",
         [("f", {"x": 'a"b\n', "y": {"k": [1, -2000.0]}})]),
        ("llama_list", "[1, 2, 3]", "[1, 2, 3]", []),
        ("llama_list", "[the docs](link)", "[the docs](link)", []),
        ("mistral", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris", "days": 2}}]</s>', "", [PARIS]),
        ("mistral", 'Wait.[TOOL_CALLS]weather[ARGS]{"city": "Paris", "days": 2}[TOOL_CALLS]now[ARGS]{}', "Wait.",
         [PARIS, ("now", {})]),
        ("mistral", '[TOOL_CALLS]weather{"city": "Paris", "days": 2}', "", [PARIS]),
        ("deepseek", f'Hm.{deepseek.CALLS}{CALL}function{SEP}weather\n```json\n{{"city": "Paris", "days": 2}}\n```{END}'
         f"\n{CALL}function{SEP}now\n```json\n{{}}\n```{END}{deepseek.CALLS_END}", "Hm.", [PARIS, ("now", {})]),
        ("deepseek", f'{deepseek.CALLS}{CALL}weather{SEP}{{"city": "Paris", "days": 2}}{END}{deepseek.CALLS_END}', "",
         [PARIS]),
        ("gemma", "Sure.\n```tool_code\nweather(city='Paris', days=2)\n```", "Sure.", [PARIS]),
        ("gemma", "```tool_code\nprint(weather(city='Paris', days=2))\nnow()\n```", "", [PARIS, ("now", {})]),
        ("gemma", "[weather(city='Paris', days=2)]<end_of_turn>", "", [PARIS]),
        ("gemma", '```json\n{"name": "weather", "parameters": {"city": "Paris", "days": 2}}\n```', "", [PARIS]),
        ("gemma", '```json\n{"answer": 3}\n```', '```json\n{"answer": 3}\n```', []),
    ],
)  # fmt: skip
def test_calls_are_found(name: str, text: str, content: str, expected: list[Any]) -> None:
    reply = parse(name, text)
    assert (calls(reply), reply.content, reply.faults) == (expected, content, ())
    assert len({call.id for call in reply.tool_calls}) == len(expected)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>', "Expecting ',' delimiter"),
        ("hermes", "<tool_call>f(1)</tool_call>", "Expecting value"),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', '"name" must be'),
        ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "must be a JSON object"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "NaN is no JSON"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>', "too large"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\\ud83d"}}</tool_call>', "surrogate"),
        ("hermes", '<tool_call>{"name": "f"} and more</tool_call>', "write nothing between"),
        ("hermes", "<tool_call>" + "[" * 100_000, "too deeply"),
        ("hermes", "<tool_call>" + "9" * 5000, "wrong number"),
        ("qwen3_coder", "<function=f><parameter=a 1</function>", "not closed by >"),
        ("llama_json", '{"name": "f", "parameters": {"a": }', "Expecting value"),
        ("llama_json", "<|python_tag|>print(1)", "give each argument with its name"),
        ("llama_list", "[f(1)]", "give each argument with its name"),
        ("llama_list", "[f(a=g(1))]", "no literal value"),
        ("llama_list", "[f(a=" + "[" * 1000, "too deeply"),
        ("llama_list", "[f(a=1, a=2)]", "given twice"),
        ("mistral", "[TOOL_CALLS]f(1)", "must follow as a JSON object"),
        ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {]', "Expecting property name"),
        ("deepseek", f"{deepseek.CALLS}{CALL}function{END}", "is missing"),
        ("gemma", "```tool_code\nweather('Paris')\n```", "give each argument with its name"),
    ],
)  # fmt: skip
def test_a_broken_call_is_a_fault_that_says_what_is_wrong(name: str, text: str, reason: str) -> None:
    reply = parse(name, text)
    assert reply.tool_calls == ()
    assert len(reply.faults) == 1
    assert reason in reply.faults[0]


def test_a_broken_call_hides_no_good_one() -> None:
    text = f"<tool_call>{{oops</tool_call>{tagged(*PARIS)}<tool_call>again {tagged(*SUM)}"
    reply = parse("hermes", text)
    assert calls(reply) == [PARIS, SUM]
    assert len(reply.faults) == 2


def test_calls_inside_of_thinking_are_not_made() -> None:
    thought = f"Shall I? {tagged(*SUM)}"
    for text in (f"<think>\n{thought}\n</think>\n\n{tagged(*PARIS)}", f"{thought}\n</think>\n\n{tagged(*PARIS)}"):
        reply = parse("hermes", text)
        assert (calls(reply), reply.thinking, reply.content) == ([PARIS], thought, "")
    unfinished = parse("hermes", f"<think>{thought}")
    assert (unfinished.tool_calls, unfinished.thinking, unfinished.content) == ((), thought, "")
    magistral = parse("mistral", '[THINK]Hm.[/THINK]Yes.[TOOL_CALLS]f[ARGS]{"a": 1}')
    assert (calls(magistral), magistral.thinking, magistral.content) == ([("f", {"a": 1})], "Hm.", "Yes.")
    plain = parse("none", f"<think>Hm.</think>Yes. {tagged(*PARIS)}")
    assert (plain.thinking, plain.content, plain.tool_calls) == ("Hm.", f"Yes. {tagged(*PARIS)}", ())


def test_ids_follow_from_the_text_and_suit_mistral() -> None:
    text = tagged(*PARIS) + tagged(*PARIS)
    first, second = parse("hermes", text).tool_calls
    assert first.id != second.id
    assert first.id.isalnum()
    assert len(first.id) == 9
    assert parse("hermes", text).tool_calls[0].id == first.id
    own = parse("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "aB3dE6gH9"}]').tool_calls[0]
    assert own.id == "aB3dE6gH9"


def test_the_number_of_calls_is_bounded() -> None:
    reply = parse("hermes", tagged(*PARIS) * (MAX_CALLS + 100))
    assert len(reply.tool_calls) == MAX_CALLS
    assert reply.faults == (f"Of a turn, only the first {MAX_CALLS} calls are read.",)
    assert len(parse("hermes", "<tool_call>" * 1000).faults) == MAX_CALLS + 1


PIECES = [
    "<tool_call>", "</tool_call>", '{"name": "f", "arguments": {', '"a": 1', "}", "}}", "[", "]", "(", ")", '"', "'",
    "\\", "<function=f>", "<parameter=a>", "</parameter>", "</function>", "<|python_tag|>", "f(a=", "f.call(", "{", ",",
    ";", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", CALL, SEP, END, deepseek.CALLS, deepseek.CALLS_END, "```",
    "```tool_code\n", "```json\n", "print(", "<think>", "</think>", "[THINK]", "[/THINK]", " ", "\n", "1", "-", "r'",
    '"""', "\\u", "\ud800", "\x00", "name", ":", *END_TOKENS,
]  # fmt: skip
texts = st.one_of(
    st.text(), st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=40).map("".join)
)


@given(texts)
def test_any_text_gives_a_reply(text: str) -> None:
    for name in FORMATS:
        reply = parse(name, text)
        for call in reply.tool_calls:
            json.dumps(call.arguments, allow_nan=False, ensure_ascii=False).encode()
            assert call.name.strip()
        assert isinstance(reply.content, str)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
arguments = st.dictionaries(st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True), json_values, max_size=4)


@given(arguments)
def test_what_was_written_is_what_is_read(given_arguments: dict[str, Any]) -> None:
    written = json.dumps(given_arguments)
    python = ", ".join(f"{key}={value!r}" for key, value in given_arguments.items())
    for name, text in {
        "hermes": tagged("f", given_arguments),
        "llama_json": f'{{"name": "f", "parameters": {written}}}',
        "llama_list": f"[f({python})]",
        "mistral": f"[TOOL_CALLS]f[ARGS]{written}",
        "deepseek": f"{deepseek.CALLS}{CALL}function{SEP}f\n```json\n{written}\n```{END}{deepseek.CALLS_END}",
        "gemma": f"```tool_code\nf({python})\n```",
    }.items():
        # Tags of thinking in an argument are taken for thinking: this is what the first test of thinking says.
        if any(tag in text for tag in ("think>", "THINK]", "```", END)) and name not in ("deepseek", "gemma"):
            continue
        assert calls(parse(name, text)) == [("f", given_arguments)], name


@pytest.mark.parametrize("name", FORMATS)
def test_no_text_takes_long(name: str) -> None:
    """A text of 100,000 characters takes milliseconds, whatever is repeated in it."""
    repeated = [
        *PIECES, '<tool_call>{"', '<tool_call>["', '{"name":', '{"a":', "f(a='", '[f(a="\\', "{'a':", "<tool_call> ",
        "[f(a=1),", "[TOOL_CALLS]f{", "a.", "```tool_code\nprint(", "{ ", "'''\\", "```tool_code", "9", "[f(a=9", "f(",
        '{"name":"', "[TOOL_CALLS][", "</s> ", "<think></think>",
    ]  # fmt: skip
    slow = {}
    for head in ("", "[f(a='''", '<tool_call>"', '{"name":'):
        for piece in repeated:
            text = head + piece * (100_000 // len(piece))
            began = time.process_time()
            parse(name, text)
            if (took := time.process_time() - began) > 0.5:
                slow[head, piece] = took
    assert slow == {}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("<tool_call>\n<function=example>", "qwen3_coder"),
        ("[TOOL_CALLS]", "mistral"),
        (CALL, "deepseek"),
        ('<|start_header_id|> {"name": function name, "parameters": dictionary of argument name}', "llama_json"),
        ("<|header_start|> [func_name1(params_name1=params_value1)]", "llama_list"),
        ("<start_of_turn>model", "gemma"),
        ("<tool_call>{{ name }}<arg_key>", None),
        ("<|im_start|>", None),
    ],
)
def test_the_template_tells_the_format(template: str, expected: str | None) -> None:
    assert detect_format(template) == expected


def test_a_format_that_is_not_known_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hermes'"):
        choose_format("hermse", "")
    with pytest.raises(ConfigError, match="does not tell how it writes tool calls"):
        choose_format("auto", "<|im_start|>")
    assert choose_format("auto", "<tool_call>") == "hermes"
    assert choose_format("mistral", "<tool_call>") == "mistral"


def test_the_configuration_names_all_formats() -> None:
    named = get_args(RolloutConfig.model_fields["tool_format"].annotation)
    assert set(named) == {AUTO, NO_CALLS, *FORMATS} == {AUTO, NO_CALLS, *EXAMPLES}


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_format_is_a_call_of_it(name: str) -> None:
    reply = parse(name, EXAMPLES[name])
    assert [(call.name, dict(call.arguments)) for call in reply.tool_calls] == [("NAME", {"KEY": "VALUE"})]
    assert reply.content == ""

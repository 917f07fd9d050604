"""Reads the calls of Qwen3-Coder (pure).

    <tool_call>
    <function=NAME>
    <parameter=KEY>
    VALUE
    </parameter>
    </function>
    </tool_call>

Values are plain texts. What they mean follows from the tool's schema: see :mod:`rft.workflows.tools.arguments`.
"""

from __future__ import annotations

from rft.workflows.tools.formats.findings import MAX_CALLS, Findings, Unreadable

FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"
TAGS = ("<tool_call>", "</tool_call>")


def find_calls(text: str, findings: Findings) -> None:
    """Add the calls in ``text`` to ``findings``. A call ends at its closing tag, at the next call or with the text."""
    head, *parts = text.split(FUNCTION)
    findings.outside(_without_tags(head))
    for part in parts[: MAX_CALLS + 1]:
        body, _, after = part.partition(FUNCTION_END)
        try:
            findings.named(*_read(body))
        except Unreadable as error:
            findings.fault(
                f"{error}. Write {FUNCTION}NAME>, then {PARAMETER}KEY>, the value and {PARAMETER_END} for each "
                f"parameter, then {FUNCTION_END}"
            )
        findings.outside(_without_tags(after))


def _read(body: str) -> tuple[str, dict[str, str]]:
    name, closed, rest = body.partition(">")
    if not closed:
        raise Unreadable(f"{FUNCTION} is not closed by >")
    _, *parts = rest.split(PARAMETER)
    arguments: dict[str, str] = {}
    for part in parts:
        key, closed, value = part.partition(">")
        if not closed or not key.strip():
            raise Unreadable(f"{PARAMETER} has no name or is not closed by >")
        value = value.partition(PARAMETER_END)[0]
        arguments[key.strip()] = value.removeprefix("\n").removesuffix("\n")
    return name, arguments


def _without_tags(part: str) -> str:
    """Return the text between two calls without the tags that wrap each of them."""
    return part.lstrip().removeprefix(TAGS[1]).rstrip().removesuffix(TAGS[0])

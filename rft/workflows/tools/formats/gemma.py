"""Reads the calls of Gemma 3 (pure): Python calls or JSON, in a ```tool_code block or as the whole text."""

from __future__ import annotations

from rft.workflows.tools.formats.findings import MAX_CALLS, Findings, Unreadable, read_json, skip_space
from rft.workflows.tools.formats.llama import find_json_calls, find_listed_calls
from rft.workflows.tools.formats.python_calls import read_call

FENCE, OPENING = "```", "```tool_code"
JSON_FENCE = "```json"
PRINT = "print("
FORM = f"{OPENING}, a line break, NAME(KEY=VALUE, …), a line break and {FENCE}"


def find_calls(text: str, findings: Findings) -> None:
    """Add the calls in ``text`` to ``findings``."""
    if OPENING in text:
        _fenced(text, findings)
        return
    begin = skip_space(text, 0)
    if text.startswith("[", begin):
        find_listed_calls(text, findings)
    elif text.startswith(("{", JSON_FENCE), begin):
        whole = text[begin:].removeprefix(JSON_FENCE).strip().removesuffix(FENCE).rstrip()
        find_json_calls(whole, findings)
        if findings.empty:  # JSON that is no call is the model's answer
            findings.plain(text)
    else:
        findings.outside(text)


def _fenced(text: str, findings: Findings) -> None:
    done = 0
    while not findings.full and (start := text.find(OPENING, done)) >= 0:
        findings.outside(text[done:start])
        begin = start + len(OPENING)
        end = text.find(f"\n{FENCE}", begin)
        end = text.find(FENCE, begin) if end < 0 else end + 1
        block = text[begin : end if end >= 0 else len(text)]
        done = end + len(FENCE) if end >= 0 else len(text)
        try:
            _block(block, findings)
        except Unreadable as error:
            findings.fault(f"{error}. Write {FORM}")
    if not findings.full:
        findings.outside(text[done:])


def _block(block: str, findings: Findings) -> None:
    """Read one block: calls below each other, each perhaps in ``print()``, or as a list, or as JSON."""
    at = skip_space(block, 0)
    listed = block.startswith("[", at) and not block.startswith("[{", at)
    at = skip_space(block, at + 1) if listed else at
    while at < len(block) and not findings.full and not (listed and block.startswith("]", at)):
        if block.startswith(("{", "["), at):
            value, at = read_json(block, at)
            for call in value[: MAX_CALLS + 1] if isinstance(value, list) else [value]:
                findings.call(call)
        else:
            printed = block.startswith(PRINT, at)
            name, arguments, at = read_call(block, at + len(PRINT) if printed else at)
            findings.named(name, arguments)
            at = skip_space(block, at)
            if printed and not block.startswith(")", at):
                raise Unreadable("print( is not closed by )")
            at += printed
        at = skip_space(block, at)
        while block.startswith((",", ";"), at):
            at = skip_space(block, at + 1)

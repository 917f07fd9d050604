"""Reads ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``: Hermes, Qwen 2.5, Qwen 3 and many others (pure)."""

from __future__ import annotations

from rft.workflows.tools.formats.findings import Findings, Unreadable, read_json, skip_space

OPENING, CLOSING = "<tool_call>", "</tool_call>"


def find_calls(text: str, findings: Findings) -> None:
    """Add the calls in ``text`` to ``findings``.

    A call whose closing tag is missing counts if its JSON is whole. One that cannot be read ends at the next tag.
    """
    done = 0
    closing = text.find(CLOSING)
    while not findings.full and (start := text.find(OPENING, done)) >= 0:
        findings.outside(text[done:start])
        begin = start + len(OPENING)
        if 0 <= closing < begin:
            closing = text.find(CLOSING, begin)
        try:
            value, end = read_json(text, begin)
            done = skip_space(text, end)
            if text.startswith(CLOSING, done):
                done += len(CLOSING)
            elif done < len(text) and not text.startswith(OPENING, done):
                raise Unreadable(f"write nothing between the JSON and {CLOSING}")
            findings.call(value)
        except Unreadable as error:
            findings.fault(f'{error}. Write {OPENING}{{"name": …, "arguments": {{…}}}}{CLOSING}')
            following = text.find(OPENING, begin)
            inside = closing >= 0 and (following < 0 or closing < following)
            done = closing + len(CLOSING) if inside else following if following >= 0 else len(text)
    if not findings.full:
        findings.outside(text[done:])

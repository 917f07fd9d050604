"""Reads the calls of Mistral's models (pure): ``[TOOL_CALLS][{"name": …, "arguments": {…}}]``, and since version 11
of their tokenizer ``[TOOL_CALLS]NAME[ARGS]{…}``, also with ``[CALL_ID]`` after the name."""

from __future__ import annotations

from rft.workflows.tools.formats.findings import MAX_CALLS, Findings, Unreadable, read_json, skip_space

MARKER = "[TOOL_CALLS]"
ARGS, CALL_ID = "[ARGS]", "[CALL_ID]"
FORM = f'{MARKER}[{{"name": NAME, "arguments": {{…}}}}]'


def find_calls(text: str, findings: Findings) -> None:
    """Add the calls in ``text`` to ``findings``."""
    done = text.find(MARKER)
    if done < 0:
        findings.outside(text)
        return
    findings.outside(text[:done])
    while 0 <= done < len(text) and not findings.full:
        start = done + len(MARKER)
        try:
            done = _read(text, start, findings)
        except Unreadable as error:
            findings.fault(f"{error}. Write {FORM}")
            done = text.find(MARKER, start)
            continue
        following = text.find(MARKER, done)
        findings.outside(text[done : following if following >= 0 else len(text)])
        done = following


def _read(text: str, start: int, findings: Findings) -> int:
    """Read the calls of one marker. Return where they end."""
    begin = skip_space(text, start)
    if text.startswith(("[", "{"), begin) and not text.startswith(MARKER, begin):
        value, end = read_json(text, begin)
        for call in value[: MAX_CALLS + 1] if isinstance(value, list) else [value]:
            findings.call(call)
        return end
    brace = text.find("{", begin, begin + 512)
    if brace < 0:
        raise Unreadable("after the name, the arguments must follow as a JSON object")
    head = text[begin:brace].strip()
    name, _, call_id = head.removesuffix(ARGS).partition(CALL_ID)
    if "[" in name or "\n" in name:
        raise Unreadable("it must be a JSON list, or a name with its arguments")
    arguments, end = read_json(text, brace)
    findings.named(name, arguments, call_id.strip() or None)
    return end

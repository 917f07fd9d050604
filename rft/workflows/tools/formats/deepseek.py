"""Reads the calls of DeepSeek V3 and R1, and of V3.1 (pure).

V3 and R1: ``<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME``, a line break, and the arguments in a ```json block.
V3.1: ``<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}``. Each call ends with ``<｜tool▁call▁end｜>``.
"""

from __future__ import annotations

from rft.workflows.tools.formats.findings import MAX_CALLS, Findings, Unreadable, read_json, skip_space

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
FENCE = "```"
FORM = f"{CALL}function{SEPARATOR}NAME, a line break, and the arguments in a {FENCE}json block, then {CALL_END}"


def find_calls(text: str, findings: Findings) -> None:
    """Add the calls in ``text`` to ``findings``."""
    head, *parts = text.split(CALL)
    opened = head.rfind(CALLS)
    findings.outside(text[: opened if opened >= 0 else len(head)])
    if opened >= 0 and not parts:
        findings.fault(f"no call follows {CALLS}. Write {FORM}")
    for part in parts[: MAX_CALLS + 1]:
        try:
            findings.named(*_read(part.partition(CALL_END)[0]))
        except Unreadable as error:
            findings.fault(f"{error}. Write {FORM}")
    if parts:
        last = parts[-1]
        ends = max(last.rfind(CALLS_END) + len(CALLS_END) if CALLS_END in last else -1, _end_of(last))
        findings.outside(last[ends:])


def _end_of(part: str) -> int:
    end = part.find(CALL_END)
    return end + len(CALL_END) if end >= 0 else len(part)


def _read(body: str) -> tuple[str, object]:
    kind, separated, rest = body.partition(SEPARATOR)
    if not separated:
        raise Unreadable(f"{SEPARATOR} is missing")
    if kind.strip() == "function" and not rest.lstrip().startswith("{"):
        name, _, rest = rest.partition("\n")
    else:
        name = kind
    begin = skip_space(rest, 0)
    if rest.startswith(FENCE, begin):
        begin = rest.find("\n", begin)
        if begin < 0:
            raise Unreadable("the arguments are missing")
    return name, read_json(rest, begin)[0]

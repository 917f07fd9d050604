"""Reads the calls of Llama 3 (JSON) and of Llama 3.2 and 4 (Python calls in a list) (pure)."""

from __future__ import annotations

import re

from rft.workflows.tools.formats.findings import Findings, Unreadable, read_json, skip_space
from rft.workflows.tools.formats.python_calls import read_call

PYTHON_TAG = "<|python_tag|>"
_JSON_CALL = re.compile(r'\{\s*"(?:name|type|function)"\s*:')
_LIST_TAGS = ("<|python_start|>", "<|python_end|>", PYTHON_TAG)
_LIST_CALL = re.compile(r"\[\s*[A-Za-z_][\w.]*\(")
JSON_FORM = '{"name": NAME, "parameters": {…}}'
LIST_FORM = "[NAME(KEY=VALUE, …), …]"


def find_json_calls(text: str, findings: Findings) -> None:
    """Add the calls in ``text`` to ``findings``: JSON objects with a name and parameters, separated by ``;`` or space.

    After ``<|python_tag|>`` there may also be ``NAME.call(KEY=VALUE)``, the form of the built-in tools. JSON that
    does not look like a call is text.
    """
    tag = text.find(PYTHON_TAG)
    if tag >= 0:
        findings.outside(text[:tag])
        at = tag + len(PYTHON_TAG)
        if not text.startswith("{", skip_space(text, at)):
            _built_in(text, at, findings)
            return
    else:
        match = _JSON_CALL.search(text)
        if not match:
            findings.outside(text)
            return
        at = match.start()
        findings.outside(text[:at])
    while at < len(text) and not findings.full:
        begin = at
        try:
            value, at = read_json(text, begin)
        except Unreadable as error:
            findings.fault(f"{error}. Write {JSON_FORM}")
            return
        if tag < 0 and not _is_call(value):
            findings.outside(text[begin:at])
        else:
            findings.call(value, arguments_keys=("parameters", "arguments"))
        at = skip_space(text, at)
        while text.startswith((";", ",", PYTHON_TAG), at):
            at = skip_space(text, at + (1 if text[at] in ";," else len(PYTHON_TAG)))
        if not text.startswith("{", at):
            break
    findings.outside(text[at:])


def find_listed_calls(text: str, findings: Findings) -> None:
    """Add the calls in ``text`` to ``findings``: a list of Python calls that the text begins with."""
    at = skip_space(text, 0)
    tagged = False
    while tag := next((tag for tag in _LIST_TAGS if text.startswith(tag, at)), None):
        tagged = True
        at = skip_space(text, at + len(tag))
    if not tagged and not _LIST_CALL.match(text, at):
        findings.outside(text)
        return
    try:
        if not text.startswith("[", at):
            raise Unreadable("a list begins with [")
        at = skip_space(text, at + 1)
        while not text.startswith("]", at) and not findings.full:
            name, arguments, at = read_call(text, at)
            findings.named(name, arguments)
            at = skip_space(text, at)
            if text.startswith(",", at):
                at = skip_space(text, at + 1)
            elif not text.startswith("]", at):
                raise Unreadable("calls are separated by , and the list ends with ]")
    except Unreadable as error:
        findings.fault(f"{error}. Write {LIST_FORM}")
        return
    at = skip_space(text, at + 1)
    while tag := next((tag for tag in _LIST_TAGS if text.startswith(tag, at)), None):
        at = skip_space(text, at + len(tag))
    findings.outside(text[at:])


def _built_in(text: str, at: int, findings: Findings) -> None:
    try:
        name, arguments, at = read_call(text, at)
    except Unreadable as error:
        findings.fault(f"{error}. Write {JSON_FORM}")
        return
    findings.named(name.removesuffix(".call"), arguments)
    findings.outside(text[at:])


def _is_call(value: object) -> bool:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    return isinstance(value, dict) and "name" in value and ("parameters" in value or "arguments" in value)

"""Finds the parser for a model's replies: by the name of a format, or by its chat template (pure)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rft.errors import ConfigError
from rft.plugins import unknown_name
from rft.workflows.messages import ParseReply, Reply
from rft.workflows.tools.formats import deepseek, gemma, hermes, llama, mistral, qwen3_coder
from rft.workflows.tools.formats.findings import Findings
from rft.workflows.tools.formats.thinking import take_apart

AUTO, NO_CALLS = "auto", "none"
FORMATS: dict[str, Callable[[str, Findings], None]] = {
    "hermes": hermes.find_calls,
    "qwen3_coder": qwen3_coder.find_calls,
    "llama_json": llama.find_json_calls,
    "llama_list": llama.find_listed_calls,
    "mistral": mistral.find_calls,
    "deepseek": deepseek.find_calls,
    "gemma": gemma.find_calls,
}
"""The formats by the names that ``rollout.tool_format`` takes."""
_SIGNS = (
    ("<arg_key>", None),  # GLM
    ("<start_function_call>", None),  # FunctionGemma
    ("<|tool_calls_section_begin|>", None),  # Kimi
    ("<function=", "qwen3_coder"),
    ("<tool_call>", "hermes"),
    ("[TOOL_CALLS]", "mistral"),
    (deepseek.CALL, "deepseek"),
    ("func_name1(", "llama_list"),
    ("<|python_start|>", "llama_list"),
    (llama.PYTHON_TAG, "llama_json"),
    ('"parameters": dictionary', "llama_json"),
    ("<start_of_turn>", "gemma"),
)
"""What a template holds, and the format that this means; None where the format is not known here. The first counts."""


def choose_format(name: str, template: str) -> str:
    """Return the format of calls that ``rollout.tool_format`` names: for ``auto``, that of the chat template.

    Raises ConfigError for an unknown name, and for ``auto`` if the template does not tell.
    """
    if name == AUTO:
        found = detect_format(template)
        if found is None:
            raise ConfigError(
                f"rollout.tool_format = 'auto': the model's chat template does not tell how it writes tool calls; "
                f"set one of {', '.join([*FORMATS, NO_CALLS])}"
            )
        return found
    if name not in (*FORMATS, NO_CALLS):
        raise ConfigError(f"rollout.tool_format = {unknown_name(name, [AUTO, *FORMATS, NO_CALLS])}")
    return name


def find_parser(name: str, template: str = "") -> ParseReply:
    """Return the parser of the format that :func:`choose_format` gives; for ``none``, one that finds no calls.

    Raises ConfigError as that function does.
    """
    format_name = choose_format(name, template)
    return _without_calls if format_name == NO_CALLS else partial(_parse, FORMATS[format_name])


def detect_format(template: str) -> str | None:
    """Return the format of the calls that a chat template shows or writes; None if it shows none that is known."""
    return next((name for sign, name in _SIGNS if sign in template), None)


def _parse(find_calls: Callable[[str, Findings], None], text: str) -> Reply:
    thinking, rest = take_apart(text)
    findings = Findings(rest)
    find_calls(rest, findings)
    return findings.reply(thinking)


def _without_calls(text: str) -> Reply:
    thinking, rest = take_apart(text)
    return Reply(rest.strip(), thinking)

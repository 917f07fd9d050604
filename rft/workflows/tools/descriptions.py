"""Describes tools in a message, for models whose chat template does not (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rft.workflows.tools.formats import deepseek as d

EXAMPLES = {
    "hermes": '<tool_call>{"name": "NAME", "arguments": {"KEY": "VALUE"}}</tool_call>',
    "qwen3_coder": "<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>",
    "llama_json": '{"name": "NAME", "parameters": {"KEY": "VALUE"}}',
    "llama_list": '[NAME(KEY="VALUE")]',
    "mistral": '[TOOL_CALLS][{"name": "NAME", "arguments": {"KEY": "VALUE"}}]',
    "deepseek": f'{d.CALL}function{d.SEPARATOR}NAME\n```json\n{{"KEY": "VALUE"}}\n```{d.CALL_END}',
    "gemma": '```tool_code\nNAME(KEY="VALUE")\n```',
}
"""How a call looks, by format."""


def describe_tools(schemas: Sequence[Mapping[str, Any]], format_name: str) -> str:
    """Return what tools there are, as JSON, and how to call them."""
    listed = "\n".join(json.dumps(schema["function"], ensure_ascii=False) for schema in schemas)
    how = f"\n\nTo call one, write:\n{EXAMPLES[format_name]}" if format_name in EXAMPLES else ""
    return f"You may call these functions:\n{listed}{how}"

"""Separates thinking and end tokens from the rest of a reply (pure)."""

from __future__ import annotations

from rft.workflows.messages import split_thinking

OPENING, CLOSING = "[THINK]", "[/THINK]"
"""How Mistral's models mark their thinking."""
END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|eot|>",
    "<|eom|>",
    "</s>",
    "<end_of_turn>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
)
"""Tokens with which the families end a turn."""
MOST_ENDS = 4
"""So many of them are removed at the end of a text."""


def take_apart(text: str) -> tuple[str, str]:
    """Return the thinking of a reply and what is left, without the tokens that end a turn."""
    text = text.strip()
    for _ in range(MOST_ENDS):
        ending = next((token for token in END_TOKENS if text.endswith(token)), None)
        if ending is None:
            break
        text = text[: -len(ending)].rstrip()
    before, closing, after = text.partition(CLOSING)
    if closing:
        return before.replace(OPENING, "", 1).strip(), after
    if text.lstrip().startswith(OPENING):
        return text.lstrip()[len(OPENING) :].strip(), ""
    return split_thinking(text)

"""Characters that a tokenizer has no token for are noticed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rft.policy.lost_characters import lost_characters


def tokenizer(**fields: object) -> SimpleNamespace:
    known: dict[str, object] = {"bos_token_id": 1, "eos_token_id": 2, "unk_token": None, "unk_token_id": None}
    return SimpleNamespace(**(known | {"pad_token": "<pad>", "pad_token_id": 0} | fields))


@pytest.mark.parametrize(
    ("fields", "text", "tokens", "found"),
    [
        ({}, "ab", [5, 6], ("", 0)),
        ({}, "3 + é", [0, 0, 7, 0, 0], ("<pad>", 4)),
        ({"unk_token": "<unk>", "unk_token_id": 9}, "aé", [5, 9], ("<unk>", 1)),
        ({"unk_token": "<unk>", "unk_token_id": 9}, "the token <unk>", [5, 9], ("", 0)),
        ({"pad_token_id": 2}, "ends", [5, 2], ("", 0)),
        ({"pad_token": None, "pad_token_id": None}, "ab", [0, 0], ("", 0)),
    ],
)
def test_a_placeholder_counts_unless_the_text_spells_it(
    fields: dict[str, object], text: str, tokens: list[int], found: tuple[str, int]
) -> None:
    assert lost_characters(tokenizer(**fields), text, tokens) == found

"""The small models of examples and templates: their texts, what is learned, and that they learn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from rft.model_files.character_model import (
    END,
    IGNORED,
    Parts,
    imitate,
    make_batch,
    make_tokenizer,
    new_model,
    save_model,
)


def test_each_character_and_each_mark_is_one_token() -> None:
    tokenizer = make_tokenizer("ab\n ", marks=("<user>",))
    tokens = tokenizer.encode(f"<user>a b\n{END}")
    assert len(tokens) == 6
    assert tokenizer.decode(tokens) == f"<user>a b\n{END}"
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.encode("x") == [tokenizer.pad_token_id]


def test_only_what_the_model_writes_is_learned() -> None:
    tokenizer = make_tokenizer("abc")
    tokens, labels = make_batch([[("ab", False), (f"c{END}", True)], [("a", False), (END, True)]], tokenizer)
    a, b, c, end = tokenizer.encode(f"abc{END}")
    assert tokens.tolist() == [[a, b, c, end], [a, end, tokenizer.pad_token_id, tokenizer.pad_token_id]]
    assert labels.tolist() == [[IGNORED, IGNORED, c, end], [IGNORED, end, IGNORED, IGNORED]]


def test_a_model_imitates_until_it_is_good_enough_and_is_read_again(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("ab>")
    model = new_model(tokenizer, context=16)
    seen: list[tuple[int, float]] = []

    def examples() -> Iterator[Parts]:
        draw = random.Random(0)
        while True:
            word = "".join(draw.choices("ab", k=2))
            yield [(f"{word}>", False), (f"{word}{END}", True)]

    steps, share = imitate(
        model, tokenizer, examples(), enough=0.5, batch=16, probes=32, report=lambda *now: seen.append(now)
    )
    assert 0.5 <= share <= 1
    assert seen[-1] == (steps, share)
    assert all(before < 0.5 for _, before in seen[:-1])
    save_model(model, tokenizer, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).encode("ab>") == tokenizer.encode("ab>")
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() == model.num_parameters()
    few = [[("a>", False), (END, True)]] * 40
    assert imitate(new_model(tokenizer), tokenizer, few, enough=2.0, batch=4, probes=32)[0] == 2

"""No held-out prompt is ever trained on, and a task number always means the same task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rft.config import Config
from rft.errors import ConfigError
from rft.tasks import TaskSource, open_sources

WORDS = {"options": {"min_word_len": 3, "max_word_len": 6}, "prompt_template": "{word}>"}


def configure(seed: int = 0, eval_tasks: int = 0, **tasks: Any) -> Config:
    return Config.model_validate({"run": {"seed": seed}, "tasks": tasks, "eval": {"tasks": eval_tasks}})


def write(path: Path, prompts: list[str]) -> str:
    path.write_text("".join(json.dumps({"question": prompt}) + "\n" for prompt in prompts))
    return f"jsonl:{path}"


def prompts(source: TaskSource, count: int | None = None) -> list[str]:
    return [source[n].prompt for n in range(len(source) if count is None else count)]


def test_500_held_out_words_are_never_among_thousands_of_training_words() -> None:
    splits = open_sources(configure(eval_tasks=500, **WORDS))
    held_out = prompts(splits.held_out)
    assert len(set(held_out)) == len(splits.held_out) == 500
    trained = prompts(splits.train, 5000)
    assert len(set(trained)) > 4000
    assert not set(trained) & set(held_out)


def test_words_held_out_of_one_run_are_held_out_of_the_next_for_any_seed() -> None:
    first, second = (open_sources(configure(seed, 100, **WORDS)) for seed in (1, 2))
    assert prompts(first.held_out) == prompts(second.held_out)
    assert prompts(first.train, 200) != prompts(second.train, 200)
    assert len(set(prompts(first.train, 200)) & set(prompts(second.train, 200))) < 20


def test_training_draws_avoid_held_out_prompts_even_where_almost_all_are() -> None:
    """There are few words of three letters. A draw of a held-out one is repeated."""
    words = {"options": {"min_word_len": 3, "max_word_len": 3}, "prompt_template": "{word}"}
    splits = open_sources(configure(eval_tasks=600, **words))
    assert not set(prompts(splits.train, 1500)) & set(prompts(splits.held_out))


def test_a_dataset_too_small_for_the_evaluation_is_refused() -> None:
    tiny = {"source": "reasoning_gym:spell_backward", "prompt_template": "{word_len}"}
    with pytest.raises(ConfigError, match=r"eval.tasks = 50, but .* only 8 different prompts"):
        open_sources(configure(eval_tasks=50, **tiny))
    with pytest.raises(ConfigError, match="next to nothing to train on"):
        open_sources(configure(eval_tasks=8, **tiny))


def test_task_numbers_mean_the_same_after_a_restart_in_any_order() -> None:
    config = configure(3, 50, **WORDS)
    forwards = prompts(open_sources(config).train, 1200)
    again = open_sources(config).train
    assert [again[n].prompt for n in (1199, 3, 700, 3, 0)] == [forwards[n] for n in (1199, 3, 700, 3, 0)]


def test_a_file_is_split_into_disjoint_parts_that_lose_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "all.jsonl", [f"q{n}" for n in range(40)])
    splits = open_sources(configure(eval_tasks=15, source=source))
    train, held_out = prompts(splits.train), prompts(splits.held_out)
    assert sorted(train + held_out) == sorted(f"q{n}" for n in range(40))
    assert len(held_out) == 15


def test_the_held_out_part_of_a_file_grows_with_eval_tasks_and_ignores_seed_and_order(tmp_path: Path) -> None:
    lines = [f"q{n}" for n in range(40)]
    first = open_sources(configure(0, 10, source=write(tmp_path / "a.jsonl", lines)))
    second = open_sources(configure(9, 20, source=write(tmp_path / "b.jsonl", lines[::-1])))
    assert prompts(second.held_out)[:10] == prompts(first.held_out)


def test_lines_with_the_same_prompt_stay_on_one_side(tmp_path: Path) -> None:
    splits = open_sources(
        configure(eval_tasks=10, source=write(tmp_path / "twice.jsonl", [f"q{n % 20}" for n in range(60)]))
    )
    assert len(splits.train) == 30
    assert not set(prompts(splits.train)) & set(prompts(splits.held_out))


def test_every_epoch_shows_every_task_once_in_its_own_order(tmp_path: Path) -> None:
    train = open_sources(configure(source=write(tmp_path / "a.jsonl", [f"q{n}" for n in range(30)]))).train
    epochs = [[train[epoch * 30 + n].prompt for n in range(30)] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_sequential_order_is_the_files_own(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", ["c", "a", "b"])
    train = open_sources(configure(source=source, order="sequential")).train
    assert prompts(train, 7) == ["c", "a", "b", "c", "a", "b", "c"]


def test_two_files_that_share_a_prompt_are_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", ["a", "b", "c"])
    clean, leaking = write(tmp_path / "clean.jsonl", ["d", "e"]), write(tmp_path / "leak.jsonl", ["b", "d"])
    splits = open_sources(configure(eval_tasks=2, source=train, eval_source=clean))
    assert sorted(prompts(splits.held_out)) == ["d", "e"]
    assert sorted(prompts(splits.train)) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match=r"share 1 of 2 held-out prompts, e.g. 'b'"):
        open_sources(configure(eval_tasks=2, source=train, eval_source=leaking))


def test_an_endless_source_leaves_out_the_prompts_of_an_evaluation_file(tmp_path: Path) -> None:
    plain = open_sources(configure(**WORDS)).train
    taken = prompts(plain, 20)
    rows = [{"question": prompt.removesuffix(">"), "word": prompt.removesuffix(">")} for prompt in dict.fromkeys(taken)]
    path = tmp_path / "eval.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = open_sources(configure(eval_tasks=len(rows), eval_source=f"jsonl:{path}", **WORDS))
    assert set(prompts(splits.held_out)) == set(taken)
    assert not set(prompts(splits.train, 500)) & set(taken)


def test_an_evaluation_that_is_too_large_or_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "few.jsonl", ["a", "b", "c"])
    with pytest.raises(ConfigError, match="has only 3 different prompts"):
        open_sources(configure(eval_tasks=4, source=source))
    with pytest.raises(ConfigError, match="holds all of them out"):
        open_sources(configure(eval_tasks=3, source=source))


@pytest.mark.parametrize("dataset", ["acre", "list_functions", "gsm_symbolic", "word_ladder", "chain_sum", "countdown"])
def test_datasets_that_make_all_their_items_at_once_are_endless_too(dataset: str) -> None:
    splits = open_sources(configure(eval_tasks=5, source=f"reasoning_gym:{dataset}"))
    assert splits.train[1_000_000].prompt

"""A name stands for a shipped function or the user's own; an error says what is wrong and what there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft.algorithms.compose import compose
from rft.config import BufferConfig, Config, RewardTerm
from rft.config_sources import resolve as resolve_config
from rft.errors import ConfigError
from rft.plugins import is_plugin, resolve
from rft.rewards.scorer import make_scorer
from rft.stream.prioritize import make_prioritizer
from rft.tasks import open_sources
from rft.training.priority import make_priority
from rft.workflows.base import find_workflow

SHIPPED = {"fifo": 1, "reward_variance": 2}


def test_a_shipped_name_is_what_it_stands_for() -> None:
    assert resolve("a.field", "fifo", SHIPPED) == 1


def test_a_function_is_loaded_by_module_and_name() -> None:
    assert resolve("a.field", "rft.plugins:resolve", {"fifo": resolve}) is resolve


def test_a_file_in_the_working_directory_needs_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "next_to_the_config.py").write_text("def double(x): return 2 * x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    double: Any = resolve("a.field", "next_to_the_config:double", {})
    assert double(4) == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exact", r"a\.field = 'exact' is unknown; choose fifo, reward_variance or package\.module:function"),
        ("reward_varianc", r"did you mean 'reward_variance'\?\); choose fifo, reward_variance or package"),
        ("a b:c", r"choose .*package\.module:function"),
        ("jsonl:data/train.jsonl", r"choose .*package\.module:function"),
        ("no_such_package.rewards:mine", r"a\.field = .*No module named 'no_such_package'"),
        ("fifoo:mine", r"No module named 'fifoo'; did you mean 'fifo'\?"),
        ("rft.plugins:no_such_function", r"a\.field = .*has no 'no_such_function'"),
        ("rft.plugins:resolv", r"has no 'resolv'; did you mean 'resolve'\?"),
        ("rft.plugins:__name__", "is a str, not a function"),
    ],
)
def test_a_wrong_name_is_a_configuration_error_that_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("a.field", name, SHIPPED)


def test_code_that_fails_while_imported_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "explodes_on_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="importing 'explodes_on_import' failed: ZeroDivisionError"):
        resolve("a.field", "explodes_on_import:anything", SHIPPED)


def test_names_of_sources_are_not_taken_for_functions() -> None:
    assert is_plugin("my.tasks:words")
    assert not is_plugin("jsonl:train.jsonl")
    assert not is_plugin("single_turn")


def algorithm(**values: Any) -> Callable[[], object]:
    return lambda: compose(Config.model_validate({"algorithm": values}).algorithm)


def configuration(**values: Any) -> Callable[[], object]:
    return lambda: resolve_config([("run.toml", values)])


TYPOS: dict[str, tuple[Callable[[], object], str, tuple[str, ...]]] = {
    "algorithm.name": (algorithm(name="grppo"), "grpo", ("dapo", "chord", "distill")),
    "algorithm.advantage": (algorithm(advantage="leave_on_out"), "leave_one_out", ("gae", "ones")),
    "algorithm.loss": (algorithm(loss="cliped"), "clipped", ("cispo", "dpo")),
    "algorithm.kl": (algorithm(kl="kk3"), "k3", ("none", "k1", "k2")),
    "algorithm.aggregation": (algorithm(aggregation="token_meen"), "token_mean", ("sequence_sum",)),
    "algorithm.filters": (algorithm(filters=["not_unifrom"]), "not_uniform", ("best", "not_truncated")),
    "algorithm.correction": (configuration(algorithm={"correction": "tiss"}), "tis", ("importance", "mis")),
    "processor.rewards": (
        lambda: make_scorer([RewardTerm(function="exact_mach")]),
        "exact_match",
        ("math_verify", "length_penalty"),
    ),
    "processor.priority": (lambda: make_prioritizer("reward_varience"), "reward_variance", ("fifo",)),
    "buffer.priority": (lambda: make_priority(BufferConfig(priority="recensy")), "recency", ("processor", "staleness")),
    "rollout.workflow": (lambda: find_workflow("singel_turn"), "single_turn", ()),
    "tasks.order": (configuration(tasks={"order": "suffled"}), "shuffled", ("pass_rate", "easy_to_hard")),
    "tasks.source": (
        lambda: open_sources(Config.model_validate({"tasks": {"source": "jsnl:a.jsonl"}})),
        "jsonl:<file>",
        ("reasoning_gym:<dataset>", "import:<name>"),
    ),
    "policy.engine": (configuration(policy={"engine": "vlm"}), "vllm", ("transformers", "openai")),
    "trainer.engine": (configuration(trainer={"engine": "deepsped"}), "deepspeed", ("torch",)),
    "trackers.use": (configuration(trackers={"use": ["tensorbord"]}), "tensorboard", ("wandb", "mlflow", "jsonl")),
    "buffer.mix": (configuration(buffer={"mix": {"rolout": 1}}), "rollout", ("replay", "preference")),
    "weights.transport": (configuration(weights={"transport": "colective"}), "collective", ("checkpoint",)),
}


@pytest.mark.parametrize("field", TYPOS)
def test_a_typo_in_any_field_that_names_something_lists_what_there_is_and_suggests_the_nearest(field: str) -> None:
    act, near, others = TYPOS[field]
    with pytest.raises(ConfigError) as caught:
        act()
    message = str(caught.value)
    assert field in message
    assert f"id you mean '{near}'?" in message
    for name in others:
        assert name in message
    if field in ("tasks.order", "tasks.source", "rollout.workflow") or field.endswith(("priority", "rewards")):
        assert "package.module:function" in message


def test_the_error_for_a_source_with_a_misspelled_kind_suggests_the_kind() -> None:
    """Its name has the form of a function's: the error of the import suggests the kind."""
    with pytest.raises(ConfigError, match=r"tasks\.source = 'reasoning_gim:spell_backward'.*mean 'reasoning_gym:<data"):
        open_sources(Config.model_validate({"tasks": {"source": "reasoning_gim:spell_backward"}}))

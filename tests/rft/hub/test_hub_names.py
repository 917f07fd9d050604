"""Which texts name a repository of the hub, and which files of it are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft.config import Config, PolicyConfig
from rft.errors import ConfigError, HubError
from rft.hub import model_selection
from rft.hub.dataset_selection import choose_files
from rft.hub.repository import Repository, dataset_repository, model_repository
from rft.hub.revisions import record_revisions, recorded_revisions
from rft.hub.settings import named_repositories, with_commits

SHA, OTHER = "a" * 40, "b" * 40


def model(text: str, revision: str | None = None) -> Repository | None:
    return model_repository(PolicyConfig(model=text, revision=revision))


def test_owner_and_name_mean_the_hub_unless_there_is_such_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert model("Qwen/Qwen3-0.6B") == Repository("model", "Qwen/Qwen3-0.6B", "main")
    assert model("Qwen/Qwen3-0.6B", SHA) == Repository("model", "Qwen/Qwen3-0.6B", SHA)
    for path in ("model", "/nowhere/model", "./a/b", "a/b/c", "runs/../model", "~/model", "", "a/"):
        assert model(path) is None, path
    (tmp_path / "Qwen").mkdir()
    assert model("Qwen/Qwen3-0.6B") is None
    assert model("hf:Qwen/Qwen3-0.6B") == Repository("model", "Qwen/Qwen3-0.6B", "main")
    with pytest.raises(ConfigError, match=r"policy.model = 'hf:Qwen': write hf:owner/name"):
        model("hf:Qwen")
    assert dataset_repository("openai/gsm8k", None, "tasks.source") is None
    assert dataset_repository("hf:openai/gsm8k", "v1", "") == Repository("dataset", "openai/gsm8k", "v1")


def test_only_safetensors_configuration_and_tokenizer_of_a_model_are_needed() -> None:
    files = [
        "README.md", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "merges.txt",
        "vocab.json", "chat_template.jinja", "model.safetensors", "consolidated.safetensors", "pytorch_model.bin",
        "modeling_custom.py", "original/params.json", "onnx/model.onnx", "tokenizer.model", "training_args.bin",
    ]  # fmt: skip
    assert model_selection.companions(files) == sorted(
        [
            "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "merges.txt",
            "vocab.json", "chat_template.jinja", "tokenizer.model",
        ]
    )  # fmt: skip
    assert model_selection.weights(files) == ["model.safetensors"]
    sharded = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert model_selection.weights([*sharded, "consolidated.safetensors"]) == sharded
    assert model_selection.weights(["adapter_config.json", "adapter_model.safetensors"]) == [
        "adapter_model.safetensors"
    ]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["README.md"], "no config.json"),
        (["config.json", "tokenizer.json", "pytorch_model.bin"], "a pickle can run any code"),
        (["config.json", "tokenizer.json", "m.Q4.gguf"], "it has m.Q4.gguf"),
        (["config.json", "model.safetensors"], "holds no tokenizer"),
    ],
)
def test_what_is_no_model_is_refused(files: list[str], says: str) -> None:
    with pytest.raises(HubError, match=says):
        model_selection.check(files, "a/b")


def test_a_model_is_complete_with_all_of_its_shards(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).touch()
    assert model_selection.is_complete(tmp_path, with_weights=False)
    assert not model_selection.is_complete(tmp_path, with_weights=True)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    assert not model_selection.is_complete(tmp_path, with_weights=True)
    (tmp_path / "model-00002-of-00002.safetensors").touch()
    assert model_selection.is_complete(tmp_path, with_weights=True)


CARD = [
    {
        "config_name": "main",
        "data_files": [{"split": "train", "path": "main/train-*"}, {"split": "test", "path": "main/test-*"}],
    },
    {"config_name": "socratic", "data_files": [{"split": "train", "path": ["socratic/train-*"]}]},
]
GSM8K = [
    "README.md",
    "main/test-00000-of-00001.parquet",
    "main/train-00000-of-00001.parquet",
    "socratic/train-0.parquet",
]


@pytest.mark.parametrize("card", [CARD, []])
def test_files_of_a_split_are_found_by_the_card_or_by_their_names(card: list[dict[str, object]]) -> None:
    assert choose_files("d", GSM8K, card, "main", None) == ["main/train-00000-of-00001.parquet"]
    assert choose_files("d", GSM8K, card, "main", "test") == ["main/test-00000-of-00001.parquet"]
    assert choose_files("d", GSM8K, card, "socratic", None) == ["socratic/train-0.parquet"]
    with pytest.raises(HubError, match="several configurations: set config to one of main, socratic"):
        choose_files("d", GSM8K, card, None, None)
    with pytest.raises(HubError, match="has no split 'dev': set it to one of test, train"):
        choose_files("d", GSM8K, card, "main", "dev")


@pytest.mark.parametrize(
    ("files", "config", "split", "chosen"),
    [
        (["data/train-1.parquet", "data/validation-1.parquet"], None, None, ["data/train-1.parquet"]),
        (["test.jsonl"], None, None, ["test.jsonl"]),
        (["a.jsonl", "b.jsonl"], None, None, ["a.jsonl", "b.jsonl"]),
        (["dev.jsonl", "train.jsonl"], None, "validation", ["dev.jsonl"]),
        (["default/train/0000.parquet", "default/test/0000.parquet"], None, "test", ["default/test/0000.parquet"]),
    ],
)
def test_a_dataset_without_a_card_is_read_as_the_hub_reads_it(
    files: list[str], config: str | None, split: str | None, chosen: list[str]
) -> None:
    assert choose_files("d", files, [], config, split) == chosen


def test_a_dataset_in_other_formats_names_the_branch_with_parquet() -> None:
    with pytest.raises(HubError, match=r"only \.csv\. Set revision = 'refs/convert/parquet'"):
        choose_files("d", ["train.csv", "README.md"], [], None, None)


def test_commits_take_the_place_of_revisions_wherever_a_repository_is_named() -> None:
    config = Config.model_validate(
        {
            "policy": {"model": "a/b"},
            "trainers": {"shadow": {"policy": {"model": "c/d", "revision": "v2"}}},
            "tasks": {"source": "hf:e/f", "eval_source": "hf:e/f"},
            "eval": {"sets": {"other": {"source": "hf:g/h"}}},
            "imports": [{"name": "i", "path": "hf:i/j"}, {"name": "unused", "path": "hf:k/l", "manual": True}],
        }
    )
    named = {str(found) for found in named_repositories(config).values()}
    assert named == {"a/b@main", "c/d@v2", "e/f@main", "g/h@main", "i/j@main"}
    commits = {found.key: SHA for found in named_repositories(config).values()}
    found = with_commits(config, commits)
    assert all(repository.revision == SHA for repository in named_repositories(found).values())
    assert (found.policy.revision, found.tasks.revision, found.tasks.eval_revision) == (SHA, SHA, None)
    assert found.of_trainer("shadow").policy.revision == SHA
    assert with_commits(found, {}) == found


def test_a_stage_or_trainer_with_another_model_does_not_take_the_revision_of_the_first() -> None:
    config = Config.model_validate(
        {
            "policy": {"model": "a/b", "revision": SHA},
            "tasks": {"source": "hf:e/f", "revision": SHA},
            "stages": [
                {"name": "one", "tasks": {"source": "hf:g/h"}},
                {"name": "two", "policy": {"model": "c/d", "revision": OTHER}},
            ],
            "trainers": {"shadow": {"policy": {"model": "c/d"}}},
        }
    )
    first, second = config.of_stage(0), config.of_stage(1, "runs/one/v1")
    assert (first.policy.revision, first.tasks.revision) == (SHA, None)
    assert (second.policy.revision, second.tasks.revision) == (OTHER, SHA)
    assert Config.model_validate({**config.model_dump(exclude={"trainers"})}).of_stage(1).policy.revision == OTHER
    assert config.of_trainer("shadow").policy.revision is None


def test_a_run_finds_its_commits_again_and_so_do_its_stages(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "stages" / "1-first"
    record_revisions(stage, {"model a/b@main": SHA})
    assert recorded_revisions(stage) == recorded_revisions(tmp_path / "run") == {"model a/b@main": SHA}
    assert recorded_revisions(tmp_path / "run" / "stages" / "2-second") == {"model a/b@main": SHA}
    assert recorded_revisions(tmp_path / "another") == {}
    assert recorded_revisions(tmp_path / "run", resumed=False) == {}
    assert recorded_revisions(tmp_path / "run" / "stages" / "2-second", resumed=False) == {"model a/b@main": SHA}
    (tmp_path / "run" / "hub_revisions.json").write_text("[")
    assert recorded_revisions(tmp_path / "run") == {}
    (tmp_path / "run" / "hub_revisions.json").unlink()
    state = tmp_path / "run" / "checkpoints" / "policy" / "step-00000003" / "trainer" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text('{"hub_revisions": {"model a/b@main": "' + OTHER + '"}}')
    assert recorded_revisions(tmp_path / "run") == {"model a/b@main": OTHER}

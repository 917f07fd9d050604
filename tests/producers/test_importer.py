"""``rft import`` on a real log: every good row is published once, and every bad one is named."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producers.importer.shell import BATCH, Import
from rft.config import Config
from rft.config_toml import to_toml
from rft.errors import DataError
from rft.log.writer import EventWriter
from schemas.events import Experience
from tests.producers.roles import RFT, Log

RoleConfig = Callable[..., Config]


def rows(count: int, start: int = 0) -> list[str]:
    return [json.dumps({"prompt": f"{i}>", "response": str(i)[::-1]}) for i in range(start, start + count)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "experts.jsonl"


def configured(role_config: RoleConfig, source: Path, **settings: Any) -> Config:
    return role_config(imports=[{"name": "experts", "path": str(source)} | settings])


def run_import(config: Config) -> Any:
    return Import(config, config.imports[0]).run(threading.Event())


def on_the_log(config: Config, entity: str = "experiences") -> Counter[str]:
    with Log(config, entity) as log:
        records = log.read(entity, wait_s=1.0)
    return Counter(getattr(r, "experience_id", r.group_id) for r in records)


def test_a_second_import_publishes_nothing_and_a_grown_file_only_what_is_new(
    role_config: RoleConfig, source: Path
) -> None:
    config = configured(role_config, source)
    source.write_text("\n".join([*rows(30), *rows(2)]))
    first = run_import(config)
    assert (first.published, first.repeated, first.rejected) == (30, 2, 0)
    second = run_import(config)
    assert (second.published, second.present) == (0, 30)
    source.write_text("\n".join([*rows(3, start=100), *rows(35)]))
    third = run_import(config)
    assert (third.published, third.present) == (8, 30)
    assert set(on_the_log(config).values()) == {1}
    assert len(on_the_log(config)) == 38


def test_an_import_killed_anywhere_publishes_the_rest_and_nothing_twice(role_config: RoleConfig, source: Path) -> None:
    """It is killed when a part of a batch is on the log and not noted; then its progress file is lost."""
    config = configured(role_config, source)
    source.write_text("\n".join(rows(BATCH + 200)))
    stop = threading.Event()
    stop.set()  # ends after the first batch
    assert Import(config, config.imports[0]).run(stop).published == BATCH
    half = Import(config, config.imports[0])

    class KilledError(Exception):
        pass

    def die(done: int, total: int) -> None:
        if done == BATCH + 50:
            raise KilledError

    with pytest.raises(KilledError):
        half.run(threading.Event(), die)
    (config.run.path / "imports" / "experts.json").unlink()
    rest = run_import(config)
    assert rest.published + rest.present == BATCH + 200
    assert rest.present >= BATCH
    counts = on_the_log(config)
    assert len(counts) == BATCH + 200
    assert set(counts.values()) == {1}


def test_bad_rows_go_to_a_file_with_their_number_and_cause(role_config: RoleConfig, source: Path) -> None:
    config = configured(role_config, source)
    source.write_text("\n".join([*rows(2), '{"prompt": "x"}', "{nonsense", *rows(1, 9)]))
    counts = run_import(config)
    assert (counts.rows, counts.published, counts.rejected) == (5, 3, 2)
    rejected = [json.loads(line) for line in Path(f"{source}.rejected.jsonl").read_text().splitlines()]
    assert [entry["row"] for entry in rejected] == [3, 4]
    assert rejected[0]["cause"] == "has no column 'response'; it has prompt"
    assert rejected[0]["content"] == {"prompt": "x"}
    assert rejected[1]["cause"].startswith("is not JSON")
    source.write_text("\n".join(rows(5)))
    run_import(config)
    assert not Path(f"{source}.rejected.jsonl").exists()


def test_rows_that_no_event_or_model_can_hold_are_rejected_and_the_others_are_published(
    role_config: RoleConfig, source: Path
) -> None:
    """10 MB, texts that are no UTF-8, and more tokens than the model's context: none of them ends the import."""
    strange = [
        {"prompt": "9>", "response": "9", "note": "x" * 10_000_000},
        {"prompt": "9>", "response": "9" * 100_000},
        {"prompt": "\ud83d>", "response": "9"},
        {"prompt": "9>", "\ud83d": "9"},
    ]
    config = configured(role_config, source, columns={"metadata": ["note"]})
    good = [json.dumps(json.loads(row) | {"note": ""}) for row in rows(4)]
    source.write_text("\n".join([*good[:2], *(json.dumps({"note": ""} | row) for row in strange), *good[2:]]))
    counts = run_import(config)
    assert (counts.rows, counts.published, counts.rejected) == (8, 4, 4)
    rejected = [json.loads(line) for line in Path(f"{source}.rejected.jsonl").read_text().splitlines()]
    assert "bytes; at most" in rejected[0]["cause"]
    assert "more than the model's context of" in rejected[1]["cause"]
    assert "lone surrogate" in rejected[2]["cause"]
    assert "has no column 'response'" in rejected[3]["cause"]
    assert "\ud83d" in rejected[3]["content"]


def test_columns_that_are_mapped_wrongly_end_the_import_with_the_cause(role_config: RoleConfig, source: Path) -> None:
    config = configured(role_config, source, columns={"response": "answer"})
    source.write_text("\n".join(rows(300)))
    with pytest.raises(DataError, match=r"first 100 rows were all rejected.*no column 'answer'; it has prompt, resp"):
        run_import(config)


def test_the_command_imports_and_prints_the_counts(role_config: RoleConfig, source: Path, tmp_path: Path) -> None:
    config = configured(role_config, source, kind="tasks")
    source.write_text("\n".join(rows(12)))
    path = tmp_path / "run.toml"
    path.write_text(to_toml(config.model_dump(mode="json", exclude_none=True)))
    answer = subprocess.run([RFT, "import", path], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "experts: 12 rows: 12 published, 0 rejected\n"
    assert "import experts: 12 of 12" in answer.stderr
    assert len(on_the_log(config, "tasks")) == 12
    wrong = subprocess.run(
        [RFT, "import", path, "--only", "novices"], capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 2
    assert "has no import 'novices'; its [[imports]] are: experts" in wrong.stderr


def test_another_runs_experiences_come_with_their_rewards_and_whole_groups(
    role_config: RoleConfig, tmp_path: Path
) -> None:
    """From the live log to an archive, from there to another log. The filtered experience is imported too, unscored."""
    from consumers.archiver import run as archive

    sys.path.insert(0, str(Path(__file__).parents[1]))
    try:
        from synthetic import scored
    finally:
        sys.path.pop(0)
    old = role_config(archive={"url": str(tmp_path / "archive")})
    group = [scored(7, sample, 3) for sample in range(3)]
    group[2] = scored(7, 2, 3, verdict="filtered", cause="too_long", reward=0.0)
    with EventWriter(old, "test") as writer:
        for member in [*group, group[0], scored(8, 0, 1, split="eval")]:
            writer.send("ready", member)
    archive(old, threading.Event(), once=True)
    new = configured(role_config, tmp_path / "archive", kind="experiences")
    assert run_import(new).published == 3
    assert run_import(new).published == 0
    with Log(new, "experiences") as log:
        found: list[Experience] = log.read("experiences", wait_s=1.0)
    assert {e.experience_id for e in found} == {f"experts-train-00000007/{n}" for n in range(3)}
    assert {(e.group_size, e.number, e.model, e.kind) for e in found} == {(3, -1, "experts", "rollout")}
    by_sample = {e.sample: e for e in found}
    assert [by_sample[n].reward for n in range(3)] == [group[0].reward, group[1].reward, None]
    assert by_sample[1].logprobs.tolist() == group[1].experience.logprobs.tolist()

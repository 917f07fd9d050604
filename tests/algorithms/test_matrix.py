"""Two steps of a real model equal float64 for each engine, adapters, place of a KL term, algorithm, updates a step.

By default rows of one process that cover all pairs are run, and one over DeepSpeed's ranks. `make matrix` runs all.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from brokers import require_deepspeed
from covering import Row, all_rows, pairs_of, pairwise
from matrix_steps import FACTORS, expected, take_steps
from synthetic import make_tiny_model

ROWS = all_rows(FACTORS, lambda row: True)
DEEPSPEED = {"engine": "deepspeed", "lora": "on", "kl": "reward", "family": "ppo, warmed up", "updates": "2"}
"""A value head that first learns alone, over ranks."""
USUAL = [*pairwise([row for row in ROWS if row["engine"] == "torch"]), DEEPSPEED]


def parameter(row: Row) -> Any:
    marks = [pytest.mark.deepspeed] if row["engine"] == "deepspeed" else []
    if row not in USUAL:
        marks.append(pytest.mark.matrix)
    return pytest.param(row, id="-".join(row.values()), marks=marks)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return make_tiny_model(root / "model"), make_tiny_model(root / "other", seed=1)


@pytest.fixture(scope="module")
def over_ranks(
    request: pytest.FixtureRequest, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Path]]]:
    """Futures of the folders of rows over DeepSpeed's ranks. Two run at a time, each in a process of its own."""
    require_deepspeed()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deepspeed", "rft.training.engines.open"])

    def run(row: Row) -> Path:
        folder = tmp_path_factory.mktemp("ranks")
        process = context.Process(target=take_steps, args=(row, *models, folder))
        process.start()
        process.join()
        assert process.exitcode == 0
        return folder

    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    rows = [item.callspec.params["row"] for item in items]
    with ThreadPoolExecutor(2) as pool:
        yield {json.dumps(row): pool.submit(run, row) for row in rows if row["engine"] == "deepspeed"}


@pytest.mark.parametrize("row", [parameter(row) for row in ROWS])
def test_two_steps_equal_float64(
    row: Row, models: tuple[Path, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path
    if row["engine"] == "deepspeed":
        folder = request.getfixturevalue("over_ranks")[json.dumps(row)].result()
    else:
        take_steps(row, *models, folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    for found, wanted in zip(metrics, expected(row, *models, folder), strict=True):
        assert found["skipped"] == 0
        assert all(math.isfinite(value) for value in found.values())
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert metrics[-1]["grad_norm"] > 0


def test_the_usual_rows_cover_all_pairs() -> None:
    of_one_process = [row for row in ROWS if row["engine"] == "torch"]
    pairs = set().union(*map(pairs_of, of_one_process))
    assert set().union(*map(pairs_of, pairwise(of_one_process))) == pairs
    assert len(USUAL) < len(ROWS) / 5

"""Two DeepSpeed ranks take the same steps as one process, for every algorithm."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from brokers import require_deepspeed
from rank_steps import RATE, compare
from safetensors.torch import load_file
from synthetic import make_tiny_model

from rft.algorithms.presets import PRESETS

pytestmark = pytest.mark.deepspeed


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return make_tiny_model(root / "model"), make_tiny_model(root / "other", seed=1)


@pytest.fixture(scope="module")
def compared(request, models, tmp_path_factory):
    """Futures of the result folders, by algorithm. Two run at a time, because ranks spend most time on imports."""
    require_deepspeed()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deepspeed", "rft.training.engines.open"])

    def run(name):
        folder = tmp_path_factory.mktemp(name)
        process = context.Process(target=compare, args=(*models, name, folder))
        process.start()
        process.join()
        assert process.exitcode == 0
        return folder

    chosen = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, name) for name in chosen}


@pytest.mark.parametrize("name", PRESETS)
def test_two_ranks_of_deepspeed_take_the_steps_of_one_process(name, compared):
    folder = compared[name].result()
    expected, metrics = (json.loads((folder / f"{one}.json").read_text()) for one in ("torch", "deepspeed"))
    for ours, theirs in zip(metrics, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert theirs["grad_norm"] > 0
        for key in ours.keys() - {"value_crc32"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-5), key
    one, two = (load_file(folder / f"{engine}.safetensors") for engine in ("torch", "deepspeed"))
    assert two.keys() == one.keys()
    # AdamW moves each weight by about the learning rate, also where the gradient is hardly more than rounding.
    assert max(float((two[key] - one[key]).abs().max()) for key in one) < 0.01 * RATE

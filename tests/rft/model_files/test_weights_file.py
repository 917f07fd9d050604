"""The file that a version is: byte for byte safetensors' own, hashed while it is filled."""

from __future__ import annotations

import hashlib
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from rft.model_files import weights_file as weights_files
from rft.model_files.safetensors_header import DTYPES
from rft.model_files.weights_file import WeightsFileBuilder, build_weights_file
from rft.weights.manifest import Manifest

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda n: n != "__metadata__")


def filled(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=numbers) * 100).to(dtype)


TENSORS = st.dictionaries(NAMES, st.builds(filled, st.sampled_from(list(DTYPES.values())), SHAPES, st.integers(0, 99)))


@settings(max_examples=300, deadline=None)
@given(TENSORS, st.randoms(), st.integers(1, 200))
def test_it_is_what_safetensors_writes_in_whatever_order_it_is_filled(tensors, chance, hashed_at_once):
    expected = save(tensors, {"format": "pt"})
    names = list(tensors)
    chance.shuffle(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights_files, "_HASHED_AT_ONCE", hashed_at_once)
        with WeightsFileBuilder({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}) as filling:
            for name in names:
                filling.put(name, tensors[name])
            made = filling.done()
    assert bytes(made.data) == expected
    assert made.sha256 == hashlib.sha256(expected).hexdigest()
    assert build_weights_file(tensors).sha256 == made.sha256
    found = made.tensors()
    assert found.keys() == tensors.keys()
    assert all(
        torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))
        for name, tensor in tensors.items()
        if tensor.dim() and tensor.numel()
    )


def test_large_ones_are_hashed_in_parts_beside_the_filling():
    tensors = {f"w{n}": torch.full((1024, 1024), float(n)) for n in range(5)} | {"small": torch.ones(3)}
    made = build_weights_file(tensors)
    assert made.sha256 == hashlib.sha256(save(tensors, {"format": "pt"})).hexdigest()
    manifest = Manifest.describe(made.data, made.sha256, 1000)
    assert [spec.name for spec in manifest.tensors] == ["small", "w0", "w1", "w2", "w3", "w4"]


def test_a_conversion_rounds_one_dtype_and_leaves_the_others():
    tensors = {"a": torch.rand(7, 3), "n": torch.arange(3), "h": torch.rand(2).half()}
    made = build_weights_file(tensors, {torch.float32: torch.bfloat16})
    assert bytes(made.data) == save(tensors | {"a": tensors["a"].bfloat16()}, {"format": "pt"})


def test_it_cannot_be_written_to_and_what_is_missing_or_misshapen_is_refused():
    made = build_weights_file({"a": torch.zeros(2)})
    with pytest.raises(TypeError):
        made.data[0] = 1
    with WeightsFileBuilder({"a": (torch.float32, (2,)), "b": (torch.float32, ())}) as filling:
        with pytest.raises(ValueError, match=r"a has shape \(3,\), but the layout has \(2,\)"):
            filling.put("a", torch.zeros(3))
        filling.put("b", torch.tensor(1.0))
        with pytest.raises(ValueError, match="no weights of a"):
            filling.done()


def test_an_error_while_filling_ends_the_hashing():
    filling = WeightsFileBuilder({"a": (torch.float32, (3_000_000,)), "b": (torch.float32, (1,))})
    filling.put("a", torch.zeros(3_000_000))
    with pytest.raises(RuntimeError, match="a rank has died"), filling:
        raise RuntimeError("a rank has died")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sha256")]

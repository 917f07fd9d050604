"""One dataset of reasoning-gym is imported without the others, and whoever needs the others still finds them."""

from __future__ import annotations

import subprocess
import sys


def in_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_one_dataset_comes_without_the_libraries_of_others() -> None:
    code = """
import sys
from rft.rewards.gym_import import import_dataset
import_dataset("spell_backward")
from reasoning_gym.factory import DATASETS, create_dataset
import_dataset("letter_counting")
print(len(DATASETS) < 5, create_dataset("spell_backward", seed=1, size=3)[0]["answer"] != "")
print([name for name in ("sympy", "matplotlib", "torch") if name in sys.modules])
"""
    assert in_new_process(code).splitlines() == ["True True", "[]"]


def test_every_dataset_is_found_and_all_of_them_stay_within_reach() -> None:
    """A user's module that imports reasoning-gym after us, one dataset after the other, gets the whole library."""
    code = """
from rft.rewards.gym_import import _file_of, import_dataset
import_dataset("spell_backward")
import reasoning_gym
from reasoning_gym.algebra import SimpleEquationsDataset
from reasoning_gym import utils
import reasoning_gym.algorithmic as algorithmic
assert reasoning_gym.create_dataset("letter_counting", size=1, seed=0)[0]["answer"]
assert reasoning_gym.get_score_answer_fn("spell_backward")
assert algorithmic.SpellBackwardDataset and reasoning_gym.arc
from reasoning_gym.factory import DATASETS
print(len(DATASETS) > 100, sum(_file_of(name) is None for name in DATASETS) < 10)
"""
    assert in_new_process(code) == "True True"


def test_all_names_are_known_before_anything_is_imported() -> None:
    code = """
from rft.rewards.gym_import import dataset_names
import sys
names = dataset_names()
assert "sympy" not in sys.modules
import reasoning_gym
from reasoning_gym.factory import DATASETS
print(sorted(names ^ set(DATASETS)), sorted(dataset_names() ^ set(DATASETS)))
"""
    assert in_new_process(code) == "[] []"

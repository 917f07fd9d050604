"""Each algorithm raises the reward in a short run over the real engine.

The small model is rewarded for writing one token again and again. ``benchmarks/algorithms.py`` does the same with the
quickstart's policy and words.
"""

import pytest
import torch
from synthetic import VOCABULARY, make_tiny_model

from benchmarks.lab import Lab, Task, demonstrated, graded, guided, lagging, mixed, online, preferred, replayed, train

LENGTH, WANTED, END, STEPS = 4, 5, 1, 25

RUNS = {
    "grpo": (online, {}, {}),
    "dr_grpo": (online, {}, {}),
    "dapo": (online, {"overlong_buffer": 0}, {}),
    "gspo": (online, {}, {"minibatches": 2}),
    "cispo": (online, {}, {"minibatches": 2}),
    "sapo": (online, {}, {"epochs": 2}),
    "rloo": (online, {}, {}),
    "reinforce_pp": (online, {"kl": "k1", "kl_coef": 1e-3, "kl_in": "reward"}, {}),
    "reinforce_pp_baseline": (online, {}, {}),
    "ppo": (online, {}, {"minibatches": 2, "epochs": 2}),
    "decoupled_ppo": (lagging(3), {}, {"minibatches": 2}),
    "grpo tis": (lagging(3), {"correction": "tis"}, {}),
    "grpo mis": (lagging(3), {"correction": "mis"}, {}),
    "topr": (replayed(5), {}, {}),
    "rec": (lagging(3), {}, {}),
    "opmd": (replayed(5), {}, {}),
    "asymre": (replayed(5), {}, {}),
    "sft": (demonstrated, {}, {}),
    "dpo": (preferred, {}, {}),
    "kto": (replayed(5), {"loss_options": {"threshold": 0.1}}, {}),
    "mix": (mixed, {}, {}),
    "chord": (mixed, {}, {}),
    "luffy": (guided, {}, {}),
    "gdpo": (graded, {}, {}),
    "distill taught": (online, {}, {}),
    "grpo taught": (online, {"teacher_coef": 0.2}, {}),
    "ppo warmed up": (online, {"value_warmup": 3}, {"minibatches": 2, "epochs": 2}),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    torch.set_num_threads(1)
    prompts = [(2 + i % 7, 9 + i % 5, 3 + i % 11) for i in range(64)]
    tasks = [Task(prompt, (WANTED,) * LENGTH) for prompt in prompts]
    return Lab(
        model=make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"),
        train=tasks[:48],
        held_out=tasks[48:] * 8,
        reward=lambda task, tokens: sum(token == WANTED for token in tokens) / LENGTH,
        end_tokens=frozenset({END}),
        max_tokens=LENGTH,
        groups=8,
        samples=6,
        trainer={"learning_rate": 2e-2},
        draws=1,
    )


@pytest.fixture(scope="module")
def teacher(lab, tmp_path_factory):
    """A model trained to imitate the right answers."""
    folder = tmp_path_factory.mktemp("teacher")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((lab.model / name).read_bytes())
    outcome = train(lab, demonstrated, {"name": "sft"}, 40, save=folder / "model.safetensors")
    assert outcome.after > 0.9
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_the_reward_rises_and_everything_stays_finite(name, lab, teacher):
    source, algorithm, trainer = RUNS[name]
    fields = {"name": name.split()[0], **algorithm} | ({"teacher": str(teacher)} if "taught" in name else {})
    outcome = train(lab, source, fields, STEPS, trainer=trainer)
    assert outcome.finite
    assert outcome.before < 2 / VOCABULARY + 0.05
    assert outcome.after > outcome.before + 0.1, outcome

"""Each algorithm's loss and gradient equal those of its paper, computed in float64 token by token."""

import math
from dataclasses import replace

import papers
import pytest
import token_papers
import torch
import variant_papers
from random_steps import LIMIT, assert_equal, random_case, run

SEEDS = range(3)

PAPERS = (
    {
        "grpo": ({"name": "grpo"}, papers.grpo),
        "grpo by sequence": ({"name": "grpo", "aggregation": "sequence_mean"}, papers.grpo_by_sequence),
        "dr_grpo": ({"name": "dr_grpo"}, lambda step: papers.dr_grpo(step, LIMIT)),
        "dapo": ({"name": "dapo"}, lambda step: papers.dapo(step, LIMIT, 2)),
        "gspo": ({"name": "gspo"}, papers.gspo),
        "cispo": ({"name": "cispo"}, papers.cispo),
        "sapo": ({"name": "sapo"}, papers.sapo),
        "rloo": ({"name": "rloo"}, lambda step: papers.rloo(step, LIMIT)),
        "reinforce_pp": (
            {"name": "reinforce_pp", "kl": "k1", "kl_coef": 0.05, "kl_in": "reward"},
            lambda step: papers.reinforce_pp(step, 0.05),
        ),
        "reinforce_pp_baseline": ({"name": "reinforce_pp_baseline"}, papers.reinforce_pp_baseline),
        "ppo": (
            {"name": "ppo", "kl": "k3", "kl_coef": 0.02, "kl_in": "reward"},
            lambda step: papers.ppo(step, 0.02),
        ),
        "ppo, discounted": (
            {"name": "ppo", "advantage_options": {"gamma": 0.9, "lam": 0.8}, "value_coef": 0.1},
            lambda step: papers.ppo(step, 0.0, 0.9, 0.8, 0.1),
        ),
        "opmd": ({"name": "opmd"}, papers.opmd),
        "asymre": ({"name": "asymre"}, lambda step: papers.asymre(step, LIMIT)),
        "topr": ({"name": "topr"}, lambda step: papers.topr(step, LIMIT)),
        "decoupled_ppo": (
            {"name": "decoupled_ppo"},
            lambda step: papers.decoupled_ppo(step, lambda seq, t: math.exp(seq.start[t] - seq.mu[t])),
        ),
        "truncated importance": (
            {"correction": "tis"},
            lambda step: papers.decoupled_ppo(step, lambda seq, t: min(math.exp(seq.start[t] - seq.mu[t]), 2.0)),
        ),
        "masked importance": (
            {"correction": "mis", "correction_high": 1.5},
            lambda step: papers.decoupled_ppo(
                step, lambda seq, t: w if 0.5 <= (w := math.exp(seq.start[t] - seq.mu[t])) <= 1.5 else 0.0
            ),
        ),
        "truncated importance of sequences": (
            {"correction": "tis", "correction_level": "sequence", "correction_high": 3.0},
            lambda step: papers.decoupled_ppo(step, lambda seq, t: min(math.exp(sum(seq.start) - sum(seq.mu)), 3.0)),
        ),
        "truncated importance of geometric means": (
            {"correction": "tis", "correction_level": "geometric", "correction_high": 1.1},
            lambda step: papers.decoupled_ppo(step, lambda seq, t: min(papers.geometric_ratio(seq), 1.1)),
        ),
        "rejection of sequences": (
            {"rejection": "sequence", "rejection_low": 0.3, "rejection_high": 1.5},
            lambda step: papers.grpo(step, kept=lambda seq, t, a: 0.3 <= math.exp(sum(seq.start) - sum(seq.mu)) <= 1.5),
        ),
        "truncated importance of tokens, rejection by geometric mean": (
            {"correction": "tis", "rejection": "geometric", "rejection_low": 0.9, "rejection_high": 1.2},
            lambda step: papers.decoupled_ppo(
                step,
                lambda seq, t: (
                    min(math.exp(seq.start[t] - seq.mu[t]), 2.0) if 0.9 <= papers.geometric_ratio(seq) <= 1.2 else 0.0
                ),
            ),
        ),
        "off-policy sequence masking": (
            {"off_policy_mask": 0.05},
            lambda step: papers.grpo(step, kept=lambda seq, t, a: a >= 0 or papers.divergence(seq) <= 0.05),
        ),
        "high entropy": (
            {"token_filter": "high_entropy", "token_filter_options": {"share": 0.3}},
            lambda step: token_papers.high_entropy(step, 0.3),
        ),
        "clip-cov": (
            {"token_filter": "clip_cov", "token_filter_options": {"share": 1.0, "low": 0.5, "high": 4.0}},
            lambda step: token_papers.clip_cov(step, 0.5, 4.0),
        ),
        "kl-cov": (
            {"loss": "kl_cov", "loss_options": {"share": 0.15, "kl_coef": 0.7}},
            lambda step: token_papers.kl_cov(step, 0.15, 0.7),
        ),
        "gspo-token": ({"name": "gspo", "loss": "gspo_token"}, variant_papers.gspo_token),
        "gmpo": ({"name": "gspo", "loss": "gmpo"}, variant_papers.gmpo),
        "sft": ({"name": "sft"}, papers.sft),
        "dpo": ({"name": "dpo"}, papers.dpo),
        "conservative dpo": (
            {"name": "dpo", "loss_options": {"beta": 0.3, "label_smoothing": 0.1}},
            lambda step: papers.dpo(step, 0.3, 0.1),
        ),
        "distill": ({"name": "distill", "teacher": "teacher"}, papers.distill),
    }
    | {
        f"grpo, teacher's {term}": (
            {"teacher": "teacher", "teacher_coef": 0.3, "teacher_term": term},
            lambda step, term=term: variant_papers.taught(step, 0.3, term),
        )
        for term in ("gap", "jsd", "k2")
    }
    | {
        f"dpo {kind} {by_length}": (
            {"name": "dpo", "loss_options": {"kind": kind, "beta": 0.3, "length_normalized": by_length}},
            lambda step, kind=kind, by_length=by_length: variant_papers.dpo(step, kind, 0.3, by_length),
        )
        for kind in ("sigmoid", "hinge", "ipo")
        for by_length in (False, True)
    }
    | {
        f"rec {mode} {importance}": (
            {"name": "rec", "loss_options": {"clip": mode, "importance": importance}},
            lambda step, mode=mode, importance=importance: papers.rec(step, LIMIT, mode, importance),
        )
        for mode in ("one_side", "two_side", "ring", "none")
        for importance in (False, True)
    }
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PAPERS)
def test_loss_and_gradient_equal_the_papers(name, seed):
    algorithm, paper = PAPERS[name]
    case = random_case(seed)
    assert_equal(case, run(case, **algorithm), paper)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "phi", "number", "share"), [
    ("mix", False, 1, 0.1),
    ("chord", True, 1, None),
    ("chord", True, 120, None),
    ("chord", True, 500, 0.05),
])  # fmt: skip
def test_demonstrations_have_their_own_loss_and_share(name, phi, number, share, seed):
    """CHORD's share falls from 0.9 to 0.05 along a cosine over 200 steps."""
    if share is None:
        share = 0.05 + 0.85 * (1 + math.cos(math.pi * number / 200)) / 2
    case = random_case(seed, kinds="mixed")
    assert_equal(case, run(case, number=number, name=name), lambda step: papers.mixed(step, share, phi))


@pytest.mark.parametrize("seed", SEEDS)
def test_kto_equals_its_paper_with_the_reference_point_from_other_prompts_answers(seed):
    case = random_case(seed)
    result = run(case, name="kto", loss_options={"undesirable": 1.5})
    assert_equal(case, result, lambda step: papers.kto(step, result.baseline))
    assert result.baseline == pytest.approx(kto_baseline(case), rel=1e-5)


def near_reference(case):
    """Return ``case`` with a reference near the policy: e^20 of k3 would leave no digits of all else in float32."""
    with torch.no_grad():
        return replace(
            case, reference=case.policy.output(case.policy.hidden) + 0.5 * case.reference[: len(case.policy.hidden)]
        )


def kto_baseline(case):
    """max(0, mean over prompts of log π(y')/π_ref(y')), y' the next sequence of another group."""
    batch, total, index = case.batch, 0.0, 0
    size = len(batch.payloads)
    for i in range(size):
        j = (i + 1) % size
        while batch.groups[j] == batch.groups[i]:
            j = (j + 1) % size
        temperature = float(batch.temperatures[i]) or 1.0
        answer = batch.payloads[j]
        for t in range(1, len(answer.tokens)):
            if answer.action_mask[t]:
                rows = case.mismatched[:, index].double() / temperature
                policy, reference = rows.log_softmax(-1)[:, int(answer.tokens[t])]
                total += float(policy - reference)
                index += 1
    return max(total / size, 0.0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_and_entropy_are_added_to_each_tokens_loss(kind, seed):
    def paper(step):
        every = [(seq, t) for seq in papers.all_sequences(step) for t in range(len(seq))]
        total = papers.grpo(step)
        for seq, t in every:
            gap = seq.ref[t] - seq.logp[t]
            estimate = {"k1": -gap, "k2": gap**2 / 2, "k3": gap.exp() - gap - 1}[kind]
            total = total + (0.3 * estimate - 0.01 * seq.entropy[t]) / len(every)
        return total

    case = random_case(seed)
    assert_equal(case, run(case, kl=kind, kl_coef=0.3, entropy_coef=0.01), paper)


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_in_the_reward_is_subtracted_from_samples_before_they_are_compared(seed):
    def paper(step):
        for seq in papers.all_sequences(step):
            seq.reward -= 0.05 * sum(p - q for p, q in zip(seq.start, seq.ref, strict=True))
        return papers.grpo(step)

    case = random_case(seed)
    assert_equal(case, run(case, kl="k1", kl_coef=0.05, kl_in="reward"), paper)


@pytest.mark.parametrize("seed", SEEDS)
def test_filtered_samples_leave_the_loss_but_not_their_groups_statistics(seed):
    def paper(step):
        total, tokens = 0.0, 0
        for group in step:
            for seq in group:
                if seq.truncated:
                    continue
                advantage = papers.grpo_advantage(group, seq)
                for logp, mu in zip(seq.logp, seq.mu, strict=True):
                    total = total - papers.ppo_term((logp - mu).exp(), advantage, 0.2, 0.2)
                    tokens += 1
        return total / tokens

    case = random_case(seed)
    assert_equal(case, run(case, filters=["not_truncated"]), paper)


@pytest.mark.parametrize("name", PAPERS)
def test_the_micro_batch_size_changes_nothing(name):
    case = random_case(11)
    whole, single = (run(case, max_tokens=size, **PAPERS[name][0]) for size in (10_000, 1))
    assert single.loss == pytest.approx(whole.loss, rel=1e-5, abs=1e-7)
    for key, gradient in whole.gradients.items():
        assert (single.gradients[key] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), key


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_the_unbiased_kl_term_is_the_estimate_times_the_ratio_to_the_sampler(kind, seed):
    """DeepSeek-V3.2: the ratio has a gradient too. Experts' tokens have no sampler and so no ratio."""

    def paper(step, separate):
        every = [(seq, t) for seq in papers.all_sequences(step) for t in range(len(seq))]
        total = papers.mixed(step, 0.1, phi=False) if separate else papers.grpo(step)
        rollouts = sum(not seq.demonstration for seq, _ in every)
        for seq, t in every:
            gap = seq.ref[t] - seq.logp[t]
            estimate = {"k1": -gap, "k2": gap**2 / 2, "k3": gap.exp() - gap - 1}[kind]
            ratio = 1.0 if seq.demonstration else (seq.logp[t] - seq.mu[t]).exp()
            share = 1.0 / len(every)
            if separate:
                share = 0.1 / (len(every) - rollouts) if seq.demonstration else 0.9 / rollouts
            total = total + 0.3 * ratio * estimate * share
        return total

    settings = {"kl": kind, "kl_coef": 0.3, "kl_unbiased": True}
    case = near_reference(random_case(seed))
    assert_equal(case, run(case, **settings), lambda step: paper(step, False))
    case = near_reference(random_case(seed, kinds="mixed"))
    assert_equal(case, run(case, name="mix", **settings), lambda step: paper(step, True))

"""One fixed record of each kind, and their bytes on disk as each version of its schema encoded them.

``python tests/schemas/example_records.py`` writes the bytes of versions that have none yet; those that are there stay
as they are for ever.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schemas.codec import encode
from schemas.events import (
    EventRef,
    Experience,
    ExternalReward,
    Member,
    Record,
    Reward,
    ScoredExperience,
    Task,
    TrainingStep,
    Waiting,
    WaitingMember,
    WeightVersion,
)
from schemas.load import NAMES, history
from schemas.sessions import GivenReward, Session, Turn, TurnPlace

FIXTURES = Path(__file__).with_name("fixtures")
_TIME = 1_700_000_000_000

_EXPERIENCE = Experience(
    experience_id="train-00000012/3",
    group_id="train-00000012",
    number=12,
    sample=3,
    split="train",
    group_size=8,
    prompt="löwe>",
    response="ewöl",
    answer="ewöl",
    created_at=_TIME,
    source="explorer-a-1",
    model="policy",
    tokens=np.array([5, 6, 7, 70_000, 6, 5], np.int32),
    action_mask=np.array([0, 0, 0, 1, 1, 1], np.uint8),
    logprobs=np.array([0, 0, 0, -0.5, -1.25, -3], np.float32),
    versions=np.array([-1, -1, -1, 2, 2, 3], np.int32),
    temperature=0.7,
    finish_reason="length",
    reward=0.25,
    duration_ms=41,
    metadata='{"word": "löwe"}',
)

_TASK = Task("train-00000012", 12, "train", "s", "löwe>", None, 8, 64, 0.7, 1.0, 99, 2, _TIME, '{"a": 1}')

EXAMPLES: dict[str, Record] = {
    "Task": _TASK,
    "Experience": _EXPERIENCE,
    "Reward": Reward("train-00000012/3", "train-00000012", "human", -0.5, _TIME, 2, '{"by": "me"}'),
    "ScoredExperience": ScoredExperience(
        experience=_EXPERIENCE,
        origin_partition=1,
        origin_offset=2**40,
        verdict="filtered",
        cause="truncated",
        reward=0.0,
        rewards={"exact_match": 1.0},
        priority=0.5,
        release_id="abcd",
        release_size=8,
        scored_at=_TIME,
    ),
    "WeightVersion": WeightVersion(
        "policy",
        3,
        6,
        "checkpoint",
        "weights/v3",
        "ab" * 32,
        1_234_567,
        True,
        _TIME,
        17,
        ("explorer-a-1#0", "explorer-a-1#1"),
        "gloo",
        "10.0.0.7:29500/0a1b",
        30_000,
        b"layout",
        2**24,
        b"\1\2\3\4",
        1,
        "weights/v1",
        "cd" * 32,
    ),
    "Member": Member(
        "explorer-a-1",
        "explorer",
        "transformers",
        "here",
        3,
        "ab",
        "a:1",
        _TIME,
        {"tokens": 12.0},
        "collective",
        "gloo",
        2,
        17,
        "a",
    ),
    "TrainingStep": TrainingStep(
        model="policy",
        kind="step",
        step=6,
        version=2,
        next_version=3,
        trained=(EventRef(1, 17, "train-00000012/3", 12, 1),),
        dropped=(EventRef(0, 4, "train-00000011/0", 11, 4, "stale"),),
        retired=(11, 12),
        digest="cd" * 32,
        metrics={"loss": 0.125},
        created_at=_TIME,
        incarnation="gpu-7/4121/2026-11-23T10:00:00Z/0a1b2c3d",
    ),
    "Waiting": Waiting(
        group_id="train-00000012",
        group_size=8,
        since=_TIME,
        members=(
            WaitingMember(
                "3", 2**40, 512, None, False, 0.25, {"exact_match": 0.25}, (ExternalReward("human", -0.5, 2),)
            ),
            WaitingMember("4", -1, 0, "truncated", True, 0.0, {}, ()),
        ),
    ),
    "Turn": Turn(
        session_id="agent-7",
        number=2,
        conversation=0,
        extends=1,
        begins=False,
        request="0a1b" * 8,
        choice=0,
        choices=1,
        messages='[{"role": "user", "content": "Löwe?"}]',
        tools="",
        tool_choice="auto",
        tokens_before=17,
        prompt_tokens=np.array([5, 70_000], np.int32),
        tokens=np.array([9, 8, 2], np.int32),
        logprobs=np.array([-0.5, -1.25, -3], np.float32),
        versions=np.array([2, 2, 3], np.int32),
        finish_reason="stop",
        max_tokens=64,
        temperature=0.7,
        top_p=0.95,
        stop=("\n",),
        seed=99,
        generation=3,
        created_at=_TIME,
        group_id="train-00000012",
    ),
    "Session": Session(
        session_id="agent-7",
        state="open",
        task=_TASK,
        sample=3,
        seed=99,
        turns=(TurnPlace(1, 2**40), TurnPlace(1, 2**40 + 1)),
        rewards=(
            GivenReward(None, None, 0.5, 1),
            GivenReward("tests", None, 1.0, 0),
            GivenReward(None, 1, -0.25, 0),
        ),
        created_at=_TIME,
        revision=4,
        source="gateway-a-1",
        metadata='{"a": 1}',
    ),
}


def fixture(name: str, number: int) -> Path:
    """Return the bytes of the example as version ``number`` encodes it."""
    return FIXTURES / f"{name}.v{number}.bin"


if __name__ == "__main__":
    for name in NAMES:
        path = fixture(name, max(history(name)))
        if not path.exists():
            path.write_bytes(encode(EXAMPLES[name]))
            print(path)

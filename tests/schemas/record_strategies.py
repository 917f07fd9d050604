"""Defines Hypothesis strategies for every record: anything that its schema allows."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

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
from schemas.sessions import GivenReward, Session, Turn, TurnPlace

text = st.text(st.characters(codec="utf-8"), max_size=20)
number = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False, allow_infinity=False)
reals = st.dictionaries(text, real, max_size=4)


@st.composite
def experiences(draw: st.DrawFn) -> Experience:
    size = draw(st.integers(0, 40))
    written = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    versions = draw(st.lists(st.integers(-1, 2**31 - 1), min_size=size, max_size=size) | st.just([3] * size))
    return Experience(
        experience_id=draw(text),
        group_id=draw(text),
        number=draw(number),
        sample=draw(number),
        split=draw(text),
        group_size=draw(number),
        prompt=draw(text),
        response=draw(text),
        answer=draw(st.none() | text),
        created_at=draw(number),
        source=draw(text),
        model=draw(text),
        tokens=np.array(draw(st.lists(st.integers(0, 2**31 - 1), min_size=size, max_size=size)), np.int32),
        action_mask=np.array(written, np.uint8),
        logprobs=np.array(
            draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=size, max_size=size)),
            np.float32,
        ),
        versions=np.array(versions, np.int32),
        kind=draw(text),
        turn=draw(number),
        temperature=draw(real),
        top_p=draw(real),
        finish_reason=draw(text),
        error=draw(st.none() | text),
        reward=draw(st.none() | real),
        duration_ms=draw(number),
        metadata=draw(text),
        row=draw(number),
        rows=draw(number),
        turn_rewards=np.array(draw(st.lists(st.floats(width=32, allow_infinity=False), max_size=5)), np.float32),
        rewards=draw(reals),
        spare=draw(number),
    )


tasks = st.builds(
    Task,
    group_id=text,
    number=number,
    split=text,
    source=text,
    prompt=text,
    answer=st.none() | text,
    samples=number,
    max_tokens=number,
    temperature=real,
    top_p=real,
    seed=number,
    min_version=number,
    issued_at=number,
    metadata=text,
    spare=number,
)
rewards = st.builds(
    Reward,
    experience_id=text,
    group_id=text,
    source=text,
    value=real,
    created_at=number,
    revision=number,
    metadata=text,
)
scored = st.builds(
    ScoredExperience,
    experience=experiences(),
    origin_partition=number,
    origin_offset=number,
    verdict=text,
    cause=st.none() | text,
    reward=real,
    rewards=reals,
    priority=real,
    release_id=text,
    release_size=number,
    scored_at=number,
)
weight_versions = st.builds(
    WeightVersion,
    model=text,
    version=number,
    step=number,
    transport=text,
    uri=text,
    sha256=text,
    size_bytes=number,
    final=st.booleans(),
    created_at=number,
    epoch=number,
    members=st.lists(text, max_size=3).map(tuple),
    backend=text,
    rendezvous=text,
    deadline_ms=number,
    layout=st.binary(max_size=20),
    bucket_bytes=number,
    checksums=st.binary(max_size=20),
    stored_version=number,
    stored_uri=text,
    stored_sha256=text,
)
members = st.builds(
    Member,
    member_id=text,
    role=text,
    engine=text,
    state=text,
    version=number,
    sha256=text,
    address=text,
    heartbeat_at=number,
    stats=reals,
    transport=text,
    backend=text,
    receivers=st.integers(-(2**31), 2**31 - 1),
    epoch=number,
    host=text,
    generate_url=text,
    generate_proof=text,
)
refs = st.builds(
    EventRef,
    partition=number,
    offset=number,
    experience_id=text,
    number=number,
    staleness=number,
    cause=text,
    use=number,
)
steps = st.builds(
    TrainingStep,
    model=text,
    kind=text,
    step=number,
    version=number,
    next_version=number,
    trained=st.lists(refs, max_size=4).map(tuple),
    dropped=st.lists(refs, max_size=4).map(tuple),
    retired=st.lists(number, max_size=4).map(tuple),
    digest=text,
    metrics=reals,
    created_at=number,
)
external = st.builds(ExternalReward, source=text, value=real, revision=number)
waiting_members = st.builds(
    WaitingMember,
    suffix=text,
    offset=number,
    size_bytes=number,
    cause=st.none() | text,
    exempt=st.booleans(),
    reward=real,
    rewards=reals,
    external=st.lists(external, max_size=3).map(tuple),
    rows=number,
    attempt=text,
)
waiting = st.builds(
    Waiting,
    group_id=text,
    group_size=number,
    since=number,
    members=st.lists(waiting_members, max_size=3).map(tuple),
    released=st.booleans(),
)
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
token_ids = st.integers(0, 2**31 - 1)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    size = draw(st.integers(0, 20))
    return Turn(
        session_id=draw(text),
        number=draw(number),
        conversation=draw(number),
        extends=draw(number),
        begins=draw(st.booleans()),
        request=draw(text),
        choice=draw(number),
        choices=draw(number),
        messages=draw(text),
        tools=draw(text),
        tool_choice=draw(text),
        tokens_before=draw(number),
        prompt_tokens=np.array(draw(st.lists(token_ids, max_size=9)), np.int32),
        tokens=np.array(draw(st.lists(token_ids, min_size=size, max_size=size)), np.int32),
        logprobs=np.array(draw(st.lists(floats32, min_size=size, max_size=size)), np.float32),
        versions=np.array(draw(st.lists(st.integers(-1, 2**31 - 1), min_size=size, max_size=size)), np.int32),
        finish_reason=draw(text),
        max_tokens=draw(number),
        temperature=draw(real),
        top_p=draw(real),
        stop=tuple(draw(st.lists(text, max_size=3))),
        seed=draw(number),
        generation=draw(number),
        created_at=draw(number),
        group_id=draw(text),
    )


sessions = st.builds(
    Session,
    session_id=text,
    state=text,
    task=tasks,
    sample=number,
    seed=number,
    turns=st.lists(st.builds(TurnPlace, partition=number, offset=number), max_size=4).map(tuple),
    rewards=st.lists(
        st.builds(GivenReward, name=st.none() | text, turn=st.none() | number, value=real, revision=number), max_size=3
    ).map(tuple),
    created_at=number,
    revision=number,
    source=text,
    metadata=text,
)
STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "Task": tasks,
    "Experience": experiences(),
    "Reward": rewards,
    "ScoredExperience": scored,
    "WeightVersion": weight_versions,
    "Member": members,
    "TrainingStep": steps,
    "Waiting": waiting,
    "Turn": turns(),
    "Session": sessions,
}
records: st.SearchStrategy[Record] = st.one_of(*STRATEGIES.values())


def experience(**changes: Any) -> Experience:
    """Return an ordinary experience of six tokens, three of them written by versions 2 and 3."""
    values: dict[str, Any] = {
        "experience_id": "train-00000012/0",
        "group_id": "train-00000012",
        "number": 12,
        "sample": 0,
        "split": "train",
        "group_size": 8,
        "prompt": "abc>",
        "response": "cba",
        "answer": "cba",
        "created_at": 1_700_000_000_000,
        "source": "explorer-0",
        "model": "policy",
        "tokens": np.array([5, 6, 7, 7, 6, 5], np.int32),
        "action_mask": np.array([0, 0, 0, 1, 1, 1], np.uint8),
        "logprobs": np.array([0, 0, 0, -0.5, -0.25, -1], np.float32),
        "versions": np.array([-1, -1, -1, 2, 2, 3], np.int32),
    }
    return Experience(**{**values, **changes})


def scored_experience(**changes: Any) -> ScoredExperience:
    """Return an ordinary scored experience."""
    values: dict[str, Any] = {
        "experience": experience(),
        "origin_partition": 1,
        "origin_offset": 7,
        "verdict": "train",
        "cause": None,
        "reward": 1.0,
        "rewards": {"exact_match": 1.0},
        "priority": 0.0,
        "release_id": "abc",
        "release_size": 8,
        "scored_at": 1_700_000_000_000,
    }
    return ScoredExperience(**{**values, **changes})

"""Accounts for what a trainer did with every scored experience: the second half of the audit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from consumers.audit.facts import Facts, Step
from consumers.audit.report import Problem, TrainedBalance
from rft.log.coordinates import LogPosition
from schemas.events import EventRef


def models(facts: Facts, default: str) -> list[str]:
    """Return the trainers that have recorded steps; ``default`` if there is none."""
    return sorted({step.model for step in facts.steps.values()}) or [default]


def account_trained(facts: Facts, model: str) -> tuple[TrainedBalance, list[Problem], int]:
    """Return one trainer's balance, what contradicts it, and the number of references that are older than the log."""
    lineage, retired, problems = _lineage(facts, model)
    steps = [*lineage, *retired]
    unchecked = sum(not facts.holds("ready", _position(ref)) for step in steps for ref in step.refs)
    problems += _missing_steps(facts, model, lineage) + _trained_twice(model, lineage)
    for step in steps:
        problems += _foreign(facts, step)
    return _balance(facts, model, lineage, steps), problems, unchecked


def _lineage(facts: Facts, model: str) -> tuple[list[Step], list[Step], list[Problem]]:
    """Return the gradient steps that led to the newest weights, in order, and the entries without a step."""
    by_number: dict[int, Step] = {}
    retired, problems = [], []
    for position in sorted(facts.steps):
        step = facts.steps[position]
        if step.model != model:
            continue
        if step.kind != "step":
            retired.append(step)
            continue
        earlier = by_number.get(step.number)
        if earlier is not None and (earlier.digest, earlier.trained) != (step.digest, step.trained):
            text = f"step {step.number} of {model} was recorded twice, with other events or other weights"
            problems.append(Problem("step_contradicted", None, text, "steps", *position, model=model, step=step.number))
        by_number[step.number] = step
    return [by_number[number] for number in sorted(by_number)], retired, problems


def _missing_steps(facts: Facts, model: str, lineage: list[Step]) -> list[Problem]:
    numbers = [step.number for step in lineage]
    if not numbers:
        return []
    whole = not any(facts.begins.get("steps", {}).values())
    missing = sorted(set(range(1 if whole else numbers[0], numbers[-1])) - set(numbers))
    return [
        Problem("step_missing", None, f"step {number} of {model} is not in steps", "steps", model=model, step=number)
        for number in missing
    ]


def _trained_twice(model: str, lineage: list[Step]) -> list[Problem]:
    """Find ids that were trained again without the step saying so: their uses must count 1, 2, 3, …"""
    steps: dict[str, list[int]] = {}
    uses: dict[str, list[int]] = {}
    for step in lineage:
        for ref in step.trained:
            steps.setdefault(ref.experience_id, []).append(step.number)
            uses.setdefault(ref.experience_id, []).append(ref.use)
    return [
        Problem(
            "trained_twice",
            name,
            f"{name} was trained by {model} in {_step_list(numbers)}",
            model=model,
            step=numbers[-1],
        )
        for name, numbers in steps.items()
        # If the log's beginning is deleted, the first step that is left may be a later use.
        if uses[name] != list(range(uses[name][0], uses[name][0] + len(numbers)))
    ]


def _foreign(facts: Facts, step: Step) -> Iterator[Problem]:
    """Find references to events that are not there, and to events that are not for training."""
    for ref in step.refs:
        position = _position(ref)
        if not facts.holds("ready", position):
            continue
        found = facts.scored.get(position)
        if found is None or (found.experience_id, found.number) != (ref.experience_id, ref.number):
            there = "nothing is" if found is None else f"{found.experience_id} (task {found.number}) is"
            kind = "foreign_event"
            why = f"it says {ref.experience_id} (task {ref.number}), but there {there}"
        elif ref in step.trained and (found.cause is not None or found.split != "train"):
            kind = "not_for_training"
            why = (
                f"{ref.experience_id} is {f'filtered: {found.cause}' if found.cause else f'of the split {found.split}'}"
            )
        else:
            continue
        where = f"partition {ref.partition}, offset {ref.offset} of ready"
        text = f"step {step.number} of {step.model} names {where}: {why}"
        yield Problem(kind, ref.experience_id, text, "ready", *position, model=step.model, step=step.number)


def _balance(facts: Facts, model: str, lineage: list[Step], steps: list[Step]) -> TrainedBalance:
    balance = TrainedBalance(model, steps=len(lineage))
    first = {ref.experience_id: ref.use for step in reversed(lineage) for ref in step.trained}
    balance.reused = sum(ref.use > first[ref.experience_id] for step in lineage for ref in step.trained)
    balance.trained = sum(len(step.trained) for step in lineage) - balance.reused
    trained = {ref.experience_id for step in lineage for ref in step.trained}
    dropped = _dropped(steps)
    splits = _for_training(facts)
    filtered = {scored.experience_id for scored in facts.scored.values()} - splits.keys()
    balance.scored = len(splits)
    for name, cause in dropped.items():
        # The first balance counts what the processor filtered.
        if name not in trained and name not in filtered:
            balance.dropped[cause] += 1
    old = {ref.experience_id for step in steps for ref in step.refs if not facts.holds("ready", _position(ref))}
    balance.deleted = len(old - splits.keys() - filtered)
    for name, split in splits.items():
        if split != "train":
            balance.evaluated += name not in trained
        elif name not in trained and name not in dropped:
            balance.buffered += 1
    return balance


def _dropped(steps: list[Step]) -> dict[str, str]:
    """Return the cause of each dropped id; any other cause comes before that a copy was a duplicate."""
    causes: dict[str, str] = {}
    for step in steps:
        for ref in step.dropped:
            if causes.get(ref.experience_id, "duplicate") == "duplicate":
                causes[ref.experience_id] = ref.cause or "unknown"
    return causes


def _for_training(facts: Facts) -> Mapping[str, str]:
    """Return the split of each id that some release has for training or evaluation."""
    return {scored.experience_id: scored.split for scored in facts.scored.values() if scored.cause is None}


def _position(ref: EventRef) -> LogPosition:
    return LogPosition(ref.partition, ref.offset)


def _step_list(numbers: list[int]) -> str:
    return f"step{'s' if len(set(numbers)) > 1 else ''} {', '.join(map(str, numbers))}"

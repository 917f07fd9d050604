"""Second half of the accounting: what a trainer did with every scored experience. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from consumers.audit.facts import Facts, Step
from consumers.audit.report import Problem, TrainedBalance
from schemas.events import EventRef


def models(facts: Facts, default: str) -> list[str]:
    """The trainers that have recorded steps; ``default`` if none has."""
    return sorted({step.model for step in facts.steps.values()}) or [default]


def training(facts: Facts, model: str) -> tuple[TrainedBalance, list[Problem], int]:
    """The balance of one trainer, what contradicts it, and how many references are older than the log."""
    lineage, retired, problems = _lineage(facts, model)
    steps = [*lineage, *retired]
    unchecked = sum(not facts.kept("ready", (ref.partition, ref.offset)) for step in steps for ref in _refs(step))
    problems += _gaps(facts, model, lineage) + _trained_twice(model, lineage)
    for step in steps:
        problems += _foreign(facts, step)
    return _balance(facts, model, lineage, steps), problems, unchecked


def _lineage(facts: Facts, model: str) -> tuple[list[Step], list[Step], list[Problem]]:
    """The gradient steps that the newest weights went through, in order, and the entries without a step."""
    by_number: dict[int, Step] = {}
    retired, problems = [], []
    for place in sorted(facts.steps):
        step = facts.steps[place]
        if step.model != model:
            continue
        if step.kind != "step":
            retired.append(step)
            continue
        earlier = by_number.get(step.number)
        if earlier is not None and (earlier.digest, earlier.trained) != (step.digest, step.trained):
            text = f"step {step.number} of {model} was recorded twice, with other events or other weights"
            problems.append(Problem("step_contradicted", None, text, "steps", *place, model=model, step=step.number))
        by_number[step.number] = step
    return [by_number[number] for number in sorted(by_number)], retired, problems


def _gaps(facts: Facts, model: str, lineage: list[Step]) -> list[Problem]:
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
    """Trained again without the step saying so: of each id the uses must be the first, second, third, …"""
    steps: dict[str, list[int]] = {}
    uses: dict[str, list[int]] = {}
    for step in lineage:
        for ref in step.trained:
            steps.setdefault(ref.experience_id, []).append(step.number)
            uses.setdefault(ref.experience_id, []).append(ref.use)
    return [
        Problem(
            "trained_twice", name, f"{name} was trained by {model} in {_listed(numbers)}", model=model, step=numbers[-1]
        )
        for name, numbers in steps.items()
        # Where the log's beginning is deleted, the first that is left may be a later use.
        if uses[name] != list(range(uses[name][0], uses[name][0] + len(numbers)))
    ]


def _foreign(facts: Facts, step: Step) -> Iterator[Problem]:
    """References to what does not stand there, and to what is not for training."""
    for ref in _refs(step):
        place = ref.partition, ref.offset
        if not facts.kept("ready", place):
            continue
        found = facts.scored.get(place)
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
        yield Problem(kind, ref.experience_id, text, "ready", *place, model=step.model, step=step.number)


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
        # What the processor filtered is in the first balance.
        if name not in trained and name not in filtered:
            balance.dropped[cause] += 1
    old = {
        ref.experience_id
        for step in steps
        for ref in _refs(step)
        if not facts.kept("ready", (ref.partition, ref.offset))
    }
    balance.deleted = len(old - splits.keys() - filtered)
    for name, split in splits.items():
        if split != "train":
            balance.evaluated += name not in trained
        elif name not in trained and name not in dropped:
            balance.buffered += 1
    return balance


def _dropped(steps: list[Step]) -> dict[str, str]:
    """Cause of each dropped id; that a copy was a duplicate says least."""
    causes: dict[str, str] = {}
    for step in steps:
        for ref in step.dropped:
            if causes.get(ref.experience_id, "duplicate") == "duplicate":
                causes[ref.experience_id] = ref.cause or "unknown"
    return causes


def _for_training(facts: Facts) -> Mapping[str, str]:
    """Split of each id that some release has for training or evaluation."""
    return {scored.experience_id: scored.split for scored in facts.scored.values() if scored.cause is None}


def _refs(step: Step) -> Iterator[EventRef]:
    yield from step.trained
    yield from step.dropped


def _listed(numbers: list[int]) -> str:
    return f"step{'s' if len(set(numbers)) > 1 else ''} {', '.join(map(str, numbers))}"

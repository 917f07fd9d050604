"""Accounts for every event of ``experiences``: the first half of the audit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from consumers.audit.facts import Facts, Published, Scored
from consumers.audit.report import EventName, Problem, PublishedBalance
from consumers.audit.tries import Tries
from rft.log.coordinates import LogPosition

Releases = Mapping[tuple[int, str], list[int]]
"""Highest origin of each release, by (partition of experiences, group)."""


def account_published(facts: Facts) -> tuple[PublishedBalance, list[Problem]]:
    """Return the balance and what contradicts it."""
    balance = PublishedBalance(published=len(facts.published))
    problems = _never_published(facts) + _dead_letters_of_nothing(facts)
    origins = _origins(facts)
    scored = _verdicts(facts.scored)
    for cause in scored.values():
        if cause is None:
            balance.scored += 1
        else:
            balance.filtered[cause] += 1
    for position, dead in facts.dead_lettered.items():
        if position not in origins:
            balance.dead_lettered[dead.error] += 1
    balance.deleted = _deleted(facts, origins, scored)
    _sort_in_the_rest(facts, origins, scored, balance, problems)
    return balance, problems


def _sort_in_the_rest(
    facts: Facts,
    origins: Mapping[LogPosition, str],
    scored: Mapping[str, str | None],
    balance: PublishedBalance,
    problems: list[Problem],
) -> None:
    """Sort in the events that are neither a scored id's first event nor a dead letter.

    Each is a duplicate, late, waiting or lost. A row of a try that gave way to another one is a duplicate.
    """
    known = {name for position, name in origins.items() if position in facts.published} | scored.keys()
    used: set[str] = set()
    releases = _releases(facts)
    in_waiting_room = {position for positions in facts.waiting.values() for position in positions}
    tries = Tries(facts)
    for position in sorted(facts.published):
        event = facts.published[position]
        name = event.experience_id
        first = name is not None and origins.get(position) == name and name not in used
        if first and name is not None:
            used.add(name)
        elif position in facts.dead_lettered and position not in origins:
            continue
        elif (name is not None and name in known) or (name is not None and tries.gave_way(position, event)):
            balance.duplicates.append(EventName(name, *position))
        else:
            if name is not None:
                known.add(name)
            if position in in_waiting_room:
                balance.waiting.append(EventName(name, *position))
            else:
                _unresolved(facts, position, event, releases, balance, problems)


def _unresolved(
    facts: Facts,
    position: LogPosition,
    event: Published,
    releases: Releases,
    balance: PublishedBalance,
    problems: list[Problem],
) -> None:
    partition, offset = position
    ends = releases.get((partition, event.group_id or ""), [])
    if any(end < offset for end in ends):
        balance.filtered["spare" if event.spare else "late"] += 1
        if event.spare:
            balance.spare.append(EventName(event.experience_id, partition, offset))
        return
    # A processor reads a partition in order: if a release holds a later event, this one had been read.
    passed_over = bool(ends)
    committed = facts.committed is not None and offset < facts.committed.get(partition, 0)
    if not passed_over and not committed:
        balance.waiting.append(EventName(event.experience_id, *position))
        return
    how = "its group was released without it" if passed_over else "the processors have committed past it"
    text = f"{_describe(event.experience_id)} at partition {partition}, offset {offset} of experiences is lost: {how}"
    problems.append(Problem("lost", event.experience_id, text, "experiences", partition, offset))


def _never_published(facts: Facts) -> list[Problem]:
    problems: dict[tuple[str, LogPosition], Problem] = {}
    for scored in facts.scored.values():
        origin, name = scored.origin, scored.experience_id
        if not facts.holds("experiences", origin) or (name, origin) in problems:
            continue
        found = facts.published.get(origin)
        if found is not None and found.experience_id == name:
            continue
        there = "nothing is" if found is None else f"{_describe(found.experience_id)} is"
        text = f"{name} was scored, but where it was published (partition {origin[0]}, offset {origin[1]}) {there}"
        problems[name, origin] = Problem("never_published", name, text, "experiences", *origin)
    return list(problems.values())


def _dead_letters_of_nothing(facts: Facts) -> list[Problem]:
    return [
        Problem(
            "letter_of_nothing",
            dead.experience_id,
            f"a dead letter says it is of partition {position.partition}, offset {position.offset} of experiences, "
            "where nothing is",
            "experiences",
            *position,
        )
        for position, dead in sorted(facts.dead_lettered.items())
        if facts.holds("experiences", position) and position not in facts.published
    ]


def _origins(facts: Facts) -> dict[LogPosition, str]:
    """Return ids by the position that ``ready`` says they were published at."""
    return {scored.origin: scored.experience_id for scored in facts.scored.values()}


def _verdicts(scored: Mapping[LogPosition, Scored]) -> dict[str, str | None]:
    """Return the cause of each id in ``ready``; None as soon as one release has it for training."""
    causes: dict[str, str | None] = {}
    for position in sorted(scored):
        event = scored[position]
        if event.experience_id not in causes or event.cause is None:
            causes[event.experience_id] = event.cause
    return causes


def _deleted(facts: Facts, origins: Mapping[LogPosition, str], scored: Mapping[str, str | None]) -> int:
    """Count the ids that retention deleted with all their origins, and the dead letters of deleted events."""
    present = {name for position, name in origins.items() if facts.holds("experiences", position)}
    letters = sum(not facts.holds("experiences", at) for at in facts.dead_lettered if at not in origins)
    return sum(name not in present for name in scored) + letters


def _releases(facts: Facts) -> Releases:
    highest: dict[tuple[int, str, str], int] = {}
    for scored in facts.scored.values():
        partition, offset = scored.origin
        key = (partition, scored.group_id, scored.release_id)
        highest[key] = max(highest.get(key, -1), offset)
    releases: dict[tuple[int, str], list[int]] = {}
    for (partition, group_id, _), offset in highest.items():
        releases.setdefault((partition, group_id), []).append(offset)
    return releases


def _describe(experience_id: str | None) -> str:
    return experience_id or "an event that cannot be decoded"

"""First half of the accounting: what became of every event of ``experiences``. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from consumers.audit.facts import Facts, Place, Published, Scored
from consumers.audit.report import Named, Problem, PublishedBalance


def publication(facts: Facts) -> tuple[PublishedBalance, list[Problem]]:
    """The balance, and what contradicts it."""
    balance = PublishedBalance(published=len(facts.published))
    problems = _never_published(facts) + _letters_of_nothing(facts)
    origins = _origins(facts)
    scored = _verdicts(facts.scored)
    for cause in scored.values():
        if cause is None:
            balance.scored += 1
        else:
            balance.filtered[cause] += 1
    for place, letter in facts.letters.items():
        if place not in origins:
            balance.dead_lettered[letter.error] += 1
    balance.deleted = _deleted(facts, origins, scored)
    _sort_in_the_rest(facts, origins, scored, balance, problems)
    return balance, problems


def _sort_in_the_rest(
    facts: Facts,
    origins: Mapping[Place, str],
    scored: Mapping[str, str | None],
    balance: PublishedBalance,
    problems: list[Problem],
) -> None:
    """Events that are no scored experience's first event and no dead letter: duplicate, late, waiting or lost."""
    known = {name for place, name in origins.items() if place in facts.published} | scored.keys()
    used: set[str] = set()
    releases = _releases(facts)
    pointed_at = {place for places in facts.waiting.values() for place in places}
    for place in sorted(facts.published):
        event = facts.published[place]
        name = event.experience_id
        first = name is not None and origins.get(place) == name and name not in used
        if first and name is not None:
            used.add(name)
        elif place in facts.letters and place not in origins:
            continue
        elif name is not None and name in known:
            balance.duplicates.append(Named(name, *place))
        else:
            if name is not None:
                known.add(name)
            if place in pointed_at:
                balance.waiting.append(Named(name, *place))
            else:
                _unresolved(facts, place, event, releases, balance, problems)


def _unresolved(
    facts: Facts,
    place: Place,
    event: Published,
    releases: Mapping[tuple[int, str], list[int]],
    balance: PublishedBalance,
    problems: list[Problem],
) -> None:
    partition, offset = place
    ends = releases.get((partition, event.group_id or ""), [])
    if any(end < offset for end in ends):
        balance.filtered["late"] += 1
        return
    # A processor takes a partition in order: a release that holds a later event was made with this one read.
    passed_over = bool(ends)
    committed = facts.committed is not None and offset < facts.committed.get(partition, 0)
    if not passed_over and not committed:
        balance.waiting.append(Named(event.experience_id, *place))
        return
    how = "its group was released without it" if passed_over else "the processors have committed past it"
    text = f"{_called(event.experience_id)} at partition {partition}, offset {offset} of experiences is lost: {how}"
    problems.append(Problem("lost", event.experience_id, text, "experiences", partition, offset))


def _never_published(facts: Facts) -> list[Problem]:
    problems: dict[tuple[str, Place], Problem] = {}
    for scored in facts.scored.values():
        origin, name = scored.origin, scored.experience_id
        if not facts.kept("experiences", origin) or (name, origin) in problems:
            continue
        found = facts.published.get(origin)
        if found is not None and found.experience_id == name:
            continue
        there = "nothing is" if found is None else f"{_called(found.experience_id)} is"
        text = f"{name} was scored, but where it was published (partition {origin[0]}, offset {origin[1]}) {there}"
        problems[name, origin] = Problem("never_published", name, text, "experiences", *origin)
    return list(problems.values())


def _letters_of_nothing(facts: Facts) -> list[Problem]:
    return [
        Problem(
            "letter_of_nothing",
            letter.experience_id,
            f"a dead letter says it is of partition {place[0]}, offset {place[1]} of experiences, where nothing is",
            "experiences",
            *place,
        )
        for place, letter in sorted(facts.letters.items())
        if facts.kept("experiences", place) and place not in facts.published
    ]


def _origins(facts: Facts) -> dict[Place, str]:
    """Ids by the place that ``ready`` says they were published at."""
    return {scored.origin: scored.experience_id for scored in facts.scored.values()}


def _verdicts(scored: Mapping[Place, Scored]) -> dict[str, str | None]:
    """Cause of each id in ``ready``; None as soon as one release has it for training."""
    causes: dict[str, str | None] = {}
    for place in sorted(scored):
        event = scored[place]
        if event.experience_id not in causes or event.cause is None:
            causes[event.experience_id] = event.cause
    return causes


def _deleted(facts: Facts, origins: Mapping[Place, str], scored: Mapping[str, str | None]) -> int:
    """Ids whose events retention deleted, each with all its origins; the letters of deleted events as well."""
    present = {name for place, name in origins.items() if facts.kept("experiences", place)}
    letters = sum(not facts.kept("experiences", place) for place in facts.letters if place not in origins)
    return sum(name not in present for name in scored) + letters


def _releases(facts: Facts) -> dict[tuple[int, str], list[int]]:
    """Highest origin of each release, by (partition of experiences, group)."""
    highest: dict[tuple[int, str, str], int] = {}
    for scored in facts.scored.values():
        partition, offset = scored.origin
        key = (partition, scored.group_id, scored.release_id)
        highest[key] = max(highest.get(key, -1), offset)
    releases: dict[tuple[int, str], list[int]] = {}
    for (partition, group_id, _), offset in highest.items():
        releases.setdefault((partition, group_id), []).append(offset)
    return releases


def _called(experience_id: str | None) -> str:
    return experience_id or "an event that cannot be decoded"

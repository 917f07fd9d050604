"""Reads the samples of a waiting group out of its members. Pure.

A member is one row, or a name that only rewards have come for. A sample of one row is named ``sample``, as its rewards
are. The rows of a larger sample are named ``sample/row``. A reward for the sample or for its last row is the sample's;
of equal revisions, the one for the sample counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rft.errors import DecodeError
from rft.log.record_checks import SHOWN
from rft.stream.sample_rows import ROWS_MISSING, HeldRows
from rft.stream.validate import MAX_ROWS
from schemas.events import ExternalReward, Reward, Waiting, WaitingMember

_ROW = re.compile(r"\d{1,8}/(\d{1,4})", re.ASCII)
PRODUCER_REVISION = -(2**63)
"""Revision of a reward that came with its experience: any reward event of that source replaces it."""


@dataclass(frozen=True, slots=True)
class WaitingSample:
    """Holds the rows of one sample that have come."""

    name: str
    """The sample's suffix."""
    rows: tuple[WaitingMember, ...]
    """In order of rows; at least one."""
    whole: WaitingMember
    """The last row, with the cause and the external rewards of the sample."""

    @property
    def complete(self) -> bool:
        return len(self.rows) >= self.rows[0].rows

    @property
    def held(self) -> HeldRows:
        first = self.rows[0]
        return HeldRows(first.attempt, first.rows, {row_of(one): one.offset for one in self.rows})


def check_members(group: Waiting) -> None:
    """Check that rows of several are named ``sample/row``. Raises DecodeError."""
    for index, one in enumerate(group.members):
        if one.rows == 1:
            continue
        named = _ROW.fullmatch(one.suffix)
        if not 1 < one.rows <= MAX_ROWS or named is None or int(named[1]) >= one.rows:
            raise DecodeError(
                f"{one.suffix[:SHOWN]!r} names none of {one.rows} rows, as sample/row", field=f"members[{index}].suffix"
            )


def suffix_of(experience_id: str, group_id: str) -> str:
    """Return the id without its group."""
    return experience_id[len(group_id) + 1 :]


def sample_of(member: WaitingMember) -> str:
    """Return the suffix of a member's sample."""
    return member.suffix if member.rows == 1 else member.suffix.rpartition("/")[0]


def row_of(member: WaitingMember) -> int:
    """Return which row of its sample a member is. :func:`check_members` has found that its suffix says so."""
    return 0 if member.rows == 1 else int(member.suffix.rpartition("/")[2])


def arrived(group: Waiting) -> list[WaitingMember]:
    """Return the members whose experience has come; of the others only rewards have."""
    return [one for one in group.members if one.offset >= 0]


def samples_of(group: Waiting) -> list[WaitingSample]:
    """Return the samples of which an experience has come, in order of arrival."""
    rows: dict[str, list[WaitingMember]] = {}
    for one in arrived(group):
        rows.setdefault(sample_of(one), []).append(one)
    early = {one.suffix: one.external for one in group.members if one.offset < 0}
    return [_sample(name, members, early.get(name, ())) for name, members in rows.items()]


def rows_of(group: Waiting, name: str) -> WaitingSample | None:
    """Return the sample of that suffix; None while no experience of it has come."""
    members = [one for one in group.members if one.offset >= 0 and sample_of(one) == name]
    return _sample(name, members, ()) if members else None


def known_ids(group: Waiting) -> Iterator[str]:
    """Yield what names the complete samples and every row of the others: all that may not be released again."""
    for sample in samples_of(group):
        for name in [sample.name] if sample.complete else (one.suffix for one in sample.rows):
            yield f"{group.group_id}/{name}"


def unused_rewards(group: Waiting) -> int:
    """Return how many members of a group hold only rewards that count for no sample."""
    samples = {one.name: one for one in samples_of(group)}
    unused = sum(one.offset < 0 and one.suffix not in samples for one in group.members)
    return unused + sum(bool(row.external) for one in samples.values() for row in one.rows[:-1])


def with_reward(members: tuple[WaitingMember, ...], suffix: str, reward: Reward) -> tuple[WaitingMember, ...]:
    """Return the members with the reward joined to the one it names, or to a new one that has not come yet."""
    external = ExternalReward(reward.source, reward.value, reward.revision)
    named = next((one for one in members if one.suffix == suffix), None)
    if named is None:
        return (*members, WaitingMember(suffix, -1, 0, None, False, 0.0, {}, (external,)))
    joined = replace(named, external=_newest((*named.external, external)))
    return tuple(joined if one is named else one for one in members)


def _sample(name: str, members: Iterable[WaitingMember], early: tuple[ExternalReward, ...]) -> WaitingSample:
    rows = tuple(sorted(members, key=row_of))
    cause = next((one.cause for one in rows if one.cause is not None), None)
    if len(rows) < rows[0].rows:
        return WaitingSample(name, rows, replace(rows[-1], cause=cause or ROWS_MISSING, reward=0.0))
    if len(rows) == 1:
        return WaitingSample(name, rows, rows[0])
    external = _newest((*early, *rows[-1].external))
    return WaitingSample(name, rows, replace(rows[-1], cause=cause, external=external))


def _newest(external: Iterable[ExternalReward]) -> tuple[ExternalReward, ...]:
    """Return the reward of the highest revision of each source; of equal ones the first."""
    newest: dict[str, ExternalReward] = {}
    for one in external:
        if one.source not in newest or newest[one.source].revision < one.revision:
            newest[one.source] = one
    return tuple(newest.values())

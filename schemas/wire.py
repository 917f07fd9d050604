"""Converts typed records to the plain dicts of Avro libraries, and back.

It also checks what Avro cannot express: floats are finite, and packed arrays fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from math import isfinite
from typing import Any

from schemas.errors import DecodeError, EncodeError
from schemas.events import (
    RECORDS,
    EventRef,
    Experience,
    ExternalReward,
    Record,
    ScoredExperience,
    Task,
    TrainingStep,
    Waiting,
    WaitingMember,
    WeightVersion,
)
from schemas.load import current
from schemas.packing import (
    PACKED,
    PACKED_TURN,
    pack,
    pack_turn,
    pack_turn_rewards,
    unpack,
    unpack_turn,
    unpack_turn_rewards,
)
from schemas.sessions import GivenReward, Session, Turn, TurnPlace

Wire = dict[str, Any]
_Error = type[DecodeError] | type[EncodeError]

_FIELDS = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (*RECORDS, EventRef, WaitingMember, ExternalReward, TurnPlace, GivenReward)
}


def _typed(kind: type[Record], holds_floats: Callable[[Any], bool]) -> tuple[str, ...]:
    return tuple(f["name"] for f in current(kind.__name__).parsed["fields"] if holds_floats(f["type"]))


_FLOATS = {kind: _typed(kind, lambda type_: type_ in ("double", ["null", "double"])) for kind in RECORDS}
_FLOAT_MAPS = {kind: _typed(kind, lambda type_: type_ == {"type": "map", "values": "double"}) for kind in RECORDS}


def to_wire(record: Record) -> Wire:
    """Return the record as Avro's plain values. Raises EncodeError."""
    kind = type(record)
    wire = {name: getattr(record, name) for name in _FIELDS[kind]}
    _check_floats(kind, wire, "", EncodeError)
    special = _TO_WIRE.get(kind)
    if special is not None:
        special(wire)
    return wire


def from_wire(kind: type[Record], wire: Wire, at: str = "") -> Record:
    """Return the record from Avro's plain values, and take them over. Errors put ``at`` before field names.

    Raises DecodeError.
    """
    _check_floats(kind, wire, at, DecodeError)
    special = _FROM_WIRE.get(kind)
    if special is not None:
        special(wire, at)
    return kind(**wire)


def _pack_experience(wire: Wire) -> None:
    wire.update(zip(PACKED, pack(*(wire[name] for name in PACKED)), strict=True))
    wire["turn_rewards"] = pack_turn_rewards(wire["turn_rewards"])


def _unpack_experience(wire: Wire, at: str) -> None:
    arrays = unpack(wire["tokens"], wire["action_mask"], wire["logprobs"], wire["versions"], at)
    wire.update(zip(PACKED, arrays, strict=True))
    wire["turn_rewards"] = unpack_turn_rewards(wire["turn_rewards"], at)


def _unnest_experience(wire: Wire) -> None:
    if not isinstance(wire["experience"], Experience):
        raise EncodeError("must be an Experience", "experience")
    try:
        wire["experience"] = to_wire(wire["experience"])
    except EncodeError as error:
        raise EncodeError(str(error).removeprefix(f"{error.field}: "), f"experience.{error.field}") from error


def _nest_experience(wire: Wire, at: str) -> None:
    wire["experience"] = from_wire(Experience, wire["experience"], f"{at}experience.")


def _unnest_refs(wire: Wire) -> None:
    names = _FIELDS[EventRef]
    for name in ("trained", "dropped"):
        wire[name] = [{field: getattr(ref, field) for field in names} for ref in wire[name]]
    wire["retired"] = list(wire["retired"])


def _nest_refs(wire: Wire, at: str) -> None:
    for name in ("trained", "dropped"):
        wire[name] = tuple(EventRef(**ref) for ref in wire[name])
    wire["retired"] = tuple(wire["retired"])


def _unnest_receivers(wire: Wire) -> None:
    wire["members"] = list(wire["members"])


def _nest_receivers(wire: Wire, at: str) -> None:
    wire["members"] = tuple(wire["members"])


def _unnest_members(wire: Wire) -> None:
    wire["members"] = [_plain_member(member, f"members[{n}]") for n, member in enumerate(wire["members"])]


def _plain_member(member: WaitingMember, at: str) -> Wire:
    plain = {name: getattr(member, name) for name in _FIELDS[WaitingMember]}
    external = [{name: getattr(one, name) for name in _FIELDS[ExternalReward]} for one in member.external]
    plain["external"] = external
    _check_member(plain, at, EncodeError)
    return plain


def _nest_members(wire: Wire, at: str) -> None:
    for n, plain in enumerate(wire["members"]):
        _check_member(plain, f"{at}members[{n}]", DecodeError)
        plain["external"] = tuple(ExternalReward(**one) for one in plain["external"])
    wire["members"] = tuple(WaitingMember(**plain) for plain in wire["members"])


def _check_member(plain: Wire, at: str, error: _Error) -> None:
    for value in (plain["reward"], *plain["rewards"].values(), *(one["value"] for one in plain["external"])):
        if not _finite(value):
            raise error(f"holds {value!r}, must be finite numbers", at)


def _pack_turn(wire: Wire) -> None:
    wire.update(zip(PACKED_TURN, pack_turn(*(wire[name] for name in PACKED_TURN)), strict=True))
    wire["stop"] = list(wire["stop"])


def _unpack_turn(wire: Wire, at: str) -> None:
    arrays = unpack_turn(wire["prompt_tokens"], wire["tokens"], wire["logprobs"], wire["versions"], at)
    wire.update(zip(PACKED_TURN, arrays, strict=True))
    wire["stop"] = tuple(wire["stop"])


def _unnest_session(wire: Wire) -> None:
    if not isinstance(wire["task"], Task):
        raise EncodeError("must be a Task", "task")
    wire["task"] = to_wire(wire["task"])
    for name, kind in (("turns", TurnPlace), ("rewards", GivenReward)):
        wire[name] = [{field: getattr(one, field) for field in _FIELDS[kind]} for one in wire[name]]
    _check_session_rewards(wire, "", EncodeError)


def _nest_session(wire: Wire, at: str) -> None:
    _check_session_rewards(wire, at, DecodeError)
    wire["task"] = from_wire(Task, wire["task"], f"{at}task.")
    wire["turns"] = tuple(TurnPlace(**place) for place in wire["turns"])
    wire["rewards"] = tuple(GivenReward(**reward) for reward in wire["rewards"])


def _check_session_rewards(wire: Wire, at: str, error: _Error) -> None:
    for number, reward in enumerate(wire["rewards"]):
        if not _finite(reward["value"]):
            raise error(f"is {reward['value']!r}, must be a finite number", f"{at}rewards[{number}].value")


_TO_WIRE: Mapping[type[Record], Callable[[Wire], None]] = {
    Experience: _pack_experience,
    ScoredExperience: _unnest_experience,
    Session: _unnest_session,
    Turn: _pack_turn,
    TrainingStep: _unnest_refs,
    Waiting: _unnest_members,
    WeightVersion: _unnest_receivers,
}
_FROM_WIRE: Mapping[type[Record], Callable[[Wire, str], None]] = {
    Experience: _unpack_experience,
    ScoredExperience: _nest_experience,
    Session: _nest_session,
    Turn: _unpack_turn,
    TrainingStep: _nest_refs,
    Waiting: _nest_members,
    WeightVersion: _nest_receivers,
}


def _check_floats(kind: type[Record], wire: Wire, at: str, error: _Error) -> None:
    for name in _FLOATS[kind]:
        if wire[name] is not None and not _finite(wire[name]):
            raise error(f"is {wire[name]!r}, must be a finite number", at + name)
    for name in _FLOAT_MAPS[kind]:
        for key, value in wire[name].items():
            if not _finite(value):
                raise error(f"is {value!r}, must be a finite number", f"{at}{name}[{key!r}]")


def _finite(value: Any) -> bool:
    try:
        return isfinite(value)
    except (TypeError, OverflowError):
        return False

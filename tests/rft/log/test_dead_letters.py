"""A dead letter keeps the event as it was, and says what went wrong and where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rft.errors import DecodeError
from rft.log.dead_letters import dead_letter_headers, earlier_failure

FIRST_MS = 1_700_000_000_000


def headers_after(original: object, error: BaseException, now_ms: int = FIRST_MS) -> list[tuple[str, bytes | None]]:
    return dead_letter_headers(
        original,  # type: ignore[arg-type]
        stage="decode",
        error=error,
        topic="rft.experiences.v1",
        partition=3,
        offset=17,
        now_ms=now_ms,
    )


def test_cause_and_origin_are_named() -> None:
    headers = headers_after([("ce_id", b"a")], DecodeError("trailing bytes", "tokens"))
    assert headers[0] == ("ce_id", b"a")
    assert dict(headers[1:]) == {
        "rft.error.stage": b"decode",
        "rft.error.class": b"DecodeError",
        "rft.error.message": b"tokens: trailing bytes",
        "rft.error.topic": b"rft.experiences.v1",
        "rft.error.partition": b"3",
        "rft.error.offset": b"17",
        "rft.error.attempt": b"1",
        "rft.error.first-failure": b"1700000000000",
        "__connect.errors.topic": b"rft.experiences.v1",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"17",
        "__connect.errors.connector.name": b"stream-rft",
        "__connect.errors.stage": b"VALUE_CONVERTER",
        "__connect.errors.exception.class.name": b"schemas.errors.DecodeError",
        "__connect.errors.exception.message": b"tokens: trailing bytes",
    }


@given(st.lists(st.tuples(st.text(), st.one_of(st.none(), st.binary()))))
def test_original_headers_are_untouched_whatever_they_are(original: list[tuple[str, bytes | None]]) -> None:
    assert headers_after(original, ValueError("x"))[: len(original)] == original


@given(st.text())
def test_any_message_is_bounded_and_valid_utf8(message: str) -> None:
    value = dict(headers_after(None, ValueError(message * 100)))["rft.error.message"]
    assert value is not None
    assert len(value) <= 4096
    value.decode()


def test_the_newest_failure_counts_when_it_fails_again() -> None:
    first = headers_after((), ValueError("x"))
    assert earlier_failure(first) == (1, FIRST_MS)
    again = headers_after(first, ValueError("y"), now_ms=FIRST_MS + 5)
    assert earlier_failure(again) == (2, FIRST_MS)
    assert dict(again)["rft.error.message"] == b"y"


def test_a_fresh_event_has_no_earlier_failure() -> None:
    assert earlier_failure([("ce_id", b"a")]) is None
    assert earlier_failure(None) is None
    assert earlier_failure([("rft.error.attempt", b"x"), ("rft.error.first-failure", b"1")]) is None

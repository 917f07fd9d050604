"""Dead letters: what each says, which are open, and what a retry carries on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rft.log.dead_letter_index import (
    DeadLetterIndex,
    Selection,
    parse_place,
    read_letter,
    resolution,
    resolution_headers,
    retry_headers,
)
from rft.log.dead_letters import dead_letter_headers, earlier_failure
from rft.log.events import Event

FIRST_MS = 1_700_000_000_000


def letter_event(
    place: tuple[int, int] = (1, 5),
    original: list[tuple[str, bytes | None]] | None = None,
    *,
    stage: str = "decode",
    error: Exception | None = None,
    topic: str = "rft.experiences.v1",
    attempt: int = 1,
    time_ms: int = FIRST_MS,
) -> Event:
    headers = dead_letter_headers(
        original,
        stage=stage,
        error=error or ValueError("trailing bytes"),
        topic=topic,
        partition=3,
        offset=17,
        attempt=attempt,
        first_failure_ms=FIRST_MS,
    )
    return Event("dlq", *place, time_ms, b"key", b"value", tuple(headers))


def marker(place: tuple[int, int], outcome: str, offset: int) -> Event:
    return Event("dlq", place[0], offset, FIRST_MS, b"key", None, tuple(resolution_headers(place, outcome)))  # type: ignore[arg-type]


def test_a_letter_tells_where_it_failed_and_why():
    letter = read_letter(letter_event(attempt=2))
    assert (letter.name, letter.stage, letter.error, letter.message) == (
        "1:5",
        "decode",
        "ValueError",
        "trailing bytes",
    )
    assert (letter.topic, letter.partition, letter.offset) == ("rft.experiences.v1", 3, 17)
    assert (letter.attempt, letter.first_failure_ms, letter.retry_of) == (2, FIRST_MS, None)


@given(st.lists(st.tuples(st.text(), st.none() | st.binary())))
def test_whatever_stands_on_the_topic_is_a_letter(headers):
    letter = read_letter(Event("dlq", 0, 1, 2, None, None, tuple(headers)))
    assert letter.place == (0, 1)
    assert letter.attempt >= 0


headers = st.lists(
    st.tuples(st.text(min_size=1).filter(lambda name: not name.startswith("rft.")), st.none() | st.binary())
)


@given(headers, st.integers(1, 6))
def test_through_any_number_of_failures_headers_stay_as_they_were_and_the_first_failure_is_kept(original, times):
    carried, retry_of = list(original), None
    for attempt in range(1, times + 1):
        before = earlier_failure(carried) or (0, FIRST_MS)
        assert before == (attempt - 1, FIRST_MS)
        event = letter_event((0, attempt), carried, attempt=before[0] + 1)
        letter = read_letter(event)
        assert (letter.attempt, letter.first_failure_ms, letter.retry_of) == (attempt, FIRST_MS, retry_of)
        carried, retry_of = retry_headers(event), letter.place
        assert carried[: len(original)] == original
        assert len(carried) == len(original) + 3, "nothing piles up"


def test_a_letter_is_open_until_an_event_closes_it():
    book = DeadLetterIndex()
    book.feed_all([letter_event((0, 0)), letter_event((0, 1)), letter_event((1, 0))])
    assert [letter.name for letter in book.open()] == ["0:0", "0:1", "1:0"]
    book.feed_all([marker((0, 1), "retried", 2), marker((1, 0), "discarded", 1), marker((7, 7), "discarded", 2)])
    assert [letter.name for letter in book.open()] == ["0:0"]
    assert {letter.name: book.state(letter) for letter in book.all()} == {
        "0:0": "open",
        "0:1": "retried",
        "1:0": "discarded",
    }


def test_a_stranger_cannot_close_a_letter_with_headers_of_his_event():
    forged = letter_event((0, 9), resolution_headers((0, 0), "discarded"))
    assert resolution(forged.headers) is None
    assert resolution([("rft.dlq.resolution", b"eaten"), ("rft.dlq.of-partition", b"0")]) is None


def test_filters_choose_by_stage_error_topic_time_and_place():
    events = [
        letter_event((0, 0), stage="decode", error=KeyError("unknown schema")),
        letter_event((0, 1), stage="score", error=ValueError("x"), topic="rft.tasks.v1", time_ms=FIRST_MS + 10),
    ]

    def chosen(**filters: object) -> list[str]:
        book = DeadLetterIndex(Selection(**filters))  # type: ignore[arg-type]
        book.feed_all(events)
        return [letter.name for letter in book.all()]

    assert chosen() == ["0:0", "0:1"]
    assert chosen(stage="score") == chosen(error="ValueError") == chosen(topic="rft.tasks.v1") == ["0:1"]
    assert chosen(since_ms=FIRST_MS + 10) == ["0:1"]
    assert chosen(until_ms=FIRST_MS + 10) == chosen(error="Unknown SCHEMA") == chosen(places={(0, 0)}) == ["0:0"]
    assert chosen(stage="score", error="KeyError") == []


def test_places_are_written_as_partition_and_offset():
    assert parse_place("3:17") == (3, 17)
    assert [parse_place(text) for text in ("", "3", "3:", ":3", "a:1", "-1:2", "1:2:3", "²:1")] == [None] * 8

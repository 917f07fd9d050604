"""Dead letters: what each says, which are open, and what a retry carries on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rft.log.coordinates import LogPosition
from rft.log.dead_letter_index import (
    DeadLetterIndex,
    DeadLetterSelection,
    Outcome,
    parse_position,
    read_dead_letter,
    resolution,
    resolution_headers,
    retry_headers,
)
from rft.log.dead_letters import dead_letter_headers, earlier_failure
from rft.log.events import Event

FIRST_MS = 1_700_000_000_000


def letter_event(
    position: tuple[int, int] = (1, 5),
    original: list[tuple[str, bytes | None]] | None = None,
    *,
    stage: str = "decode",
    error: Exception | None = None,
    topic: str = "rft.experiences.v1",
    time_ms: int = FIRST_MS,
) -> Event:
    headers = dead_letter_headers(
        original,
        stage=stage,
        error=error or ValueError("trailing bytes"),
        topic=topic,
        partition=3,
        offset=17,
        now_ms=FIRST_MS,
    )
    return Event("dlq", *position, time_ms, b"key", b"value", tuple(headers))


def marker(position: tuple[int, int], outcome: Outcome, offset: int) -> Event:
    closing = resolution_headers(LogPosition(*position), outcome)
    return Event("dlq", position[0], offset, FIRST_MS, b"key", None, tuple(closing))


def test_a_letter_says_where_it_failed_and_why():
    failed_once = [("rft.error.attempt", b"1"), ("rft.error.first-failure", b"%d" % FIRST_MS)]
    letter = read_dead_letter(letter_event(original=failed_once))
    assert (letter.name, letter.stage, letter.error, letter.message) == (
        "1:5",
        "decode",
        "ValueError",
        "trailing bytes",
    )
    assert (letter.topic, letter.partition, letter.offset) == ("rft.experiences.v1", 3, 17)
    assert (letter.attempt, letter.first_failure_ms, letter.retry_of) == (2, FIRST_MS, None)


@given(st.lists(st.tuples(st.text(), st.none() | st.binary())))
def test_any_event_of_the_topic_is_a_letter(headers):
    letter = read_dead_letter(Event("dlq", 0, 1, 2, None, None, tuple(headers)))
    assert letter.position == (0, 1)
    assert letter.attempt >= 0


headers = st.lists(
    st.tuples(st.text(min_size=1).filter(lambda name: not name.startswith("rft.")), st.none() | st.binary())
)


@given(headers, st.integers(1, 6))
def test_headers_and_the_first_failure_survive_any_number_of_failures(original, times):
    carried, retry_of = list(original), None
    for attempt in range(1, times + 1):
        before = earlier_failure(carried) or (0, FIRST_MS)
        assert before == (attempt - 1, FIRST_MS)
        event = letter_event((0, attempt), carried)
        letter = read_dead_letter(event)
        assert (letter.attempt, letter.first_failure_ms, letter.retry_of) == (attempt, FIRST_MS, retry_of)
        carried, retry_of = retry_headers(event), letter.position
        assert carried[: len(original)] == original
        assert len(carried) == len(original) + 3, "nothing piles up"


def test_headers_that_kafka_connect_wrote_before_us_stay():
    connects = [("__connect.errors.topic", b"theirs"), ("mine", b"1")]
    event = letter_event((0, 1), connects)
    assert retry_headers(event)[:2] == connects
    assert [name for name, _ in retry_headers(event)].count("__connect.errors.topic") == 1


def test_a_letter_is_open_until_an_event_closes_it():
    index = DeadLetterIndex()
    index.feed_all([letter_event((0, 0)), letter_event((0, 1)), letter_event((1, 0))])
    assert [letter.name for letter in index.open()] == ["0:0", "0:1", "1:0"]
    index.feed_all([marker((0, 1), "retried", 2), marker((1, 0), "discarded", 1), marker((7, 7), "discarded", 2)])
    assert [letter.name for letter in index.open()] == ["0:0"]
    assert {letter.name: index.state(letter) for letter in index.all()} == {
        "0:0": "open",
        "0:1": "retried",
        "1:0": "discarded",
    }


def test_the_headers_of_a_published_event_cannot_close_a_letter():
    forged = letter_event((0, 9), resolution_headers(LogPosition(0, 0), "discarded"))
    assert resolution(forged.headers) is None
    assert resolution([("rft.dlq.resolution", b"eaten"), ("rft.dlq.of-partition", b"0")]) is None


def test_filters_choose_by_stage_error_topic_time_and_position():
    events = [
        letter_event((0, 0), stage="decode", error=KeyError("unknown schema")),
        letter_event((0, 1), stage="score", error=ValueError("x"), topic="rft.tasks.v1", time_ms=FIRST_MS + 10),
    ]

    def chosen(**filters: object) -> list[str]:
        index = DeadLetterIndex(DeadLetterSelection(**filters))  # type: ignore[arg-type]
        index.feed_all(events)
        return [letter.name for letter in index.all()]

    assert chosen() == ["0:0", "0:1"]
    assert chosen(stage="score") == chosen(error="ValueError") == chosen(topic="rft.tasks.v1") == ["0:1"]
    assert chosen(since_ms=FIRST_MS + 10) == ["0:1"]
    assert chosen(until_ms=FIRST_MS + 10) == chosen(error="Unknown SCHEMA") == chosen(positions={(0, 0)}) == ["0:0"]
    assert chosen(stage="score", error="KeyError") == []


def test_positions_are_written_as_partition_and_offset():
    assert parse_position("3:17") == (3, 17)
    assert [parse_position(text) for text in ("", "3", "3:", ":3", "a:1", "-1:2", "1:2:3", "²:1")] == [None] * 8


def test_stages_of_earlier_releases_are_found_by_their_name_of_today_and_of_then():
    events = [letter_event((0, 0)), letter_event((0, 1), stage="train"), letter_event((0, 2), stage="explorer")]

    def chosen(stage: str) -> list[str]:
        index = DeadLetterIndex(DeadLetterSelection(stage=stage))
        index.feed_all(events)
        return [letter.name for letter in index.all()]

    assert (chosen("decode"), chosen("train"), chosen("score")) == (["0:0", "0:1", "0:2"], ["0:1"], [])

"""``rft dlq`` on a real log: events come back byte for byte, and what fails again does not loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import check_refusal, rft

from rft.config import Config
from rft.log.dead_letters import VALUE_OMITTED, Stage, dead_letter_headers
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.log.topics import topic_name
from rft.log.writer import EventWriter
from schemas.framing import Headers


def publish_dead_letter(
    config: Config,
    writer: EventWriter,
    number: int,
    value: bytes | None,
    *,
    stage: Stage = "decode",
    failures: int = 0,
    more: Headers = (),
    **facts: Any,
) -> None:
    """A dead letter as a role writes it; ``failures`` are the earlier ones, ``more`` further headers."""
    original = [("mine", b"\xff\x00"), ("mine", b"")]
    if failures:
        original += [("rft.error.attempt", b"%d" % failures), ("rft.error.first-failure", b"1")]
    headers = dead_letter_headers(
        original,
        stage=stage,
        error=ValueError(f"fault {number}"),
        **{"topic": topic_name(config, "experiences"), "partition": 0, "offset": number, "now_ms": 1} | facts,
    )
    writer.send_bytes("dlq", value, key=b"key-%d" % number, headers=[*headers, *more])


def everything(config: Config, entity: str) -> list[Event]:
    with EventReader(config, "test", [entity]) as reader:
        ends = reader.end_offsets()
        events: list[Event] = []
        while not reader.caught_up(ends):
            events += reader.poll(0.2)
    return events


@pytest.fixture
def command(log_config: Config, tmp_path: Path) -> Callable[..., Any]:
    """Runs ``rft dlq`` on the test's log."""
    path = tmp_path / "run.toml"
    path.write_text(
        f'[broker]\nkind = "external"\nbootstrap_servers = "{log_config.broker.bootstrap_servers}"\n'
        f'[log]\nnamespace = "{log_config.log.namespace}"\n[run]\nfolder = "{tmp_path}"\n'
    )

    def run(verb: str, *words: str) -> Any:
        return rft("dlq", verb, path, *words)

    return run


def listed(command: Callable[..., Any], *words: str) -> list[dict[str, Any]]:
    answer = command("list", "--json", *words)
    assert answer.returncode == 0, answer.stderr
    return list(json.loads(answer.stdout))


def test_a_retried_event_is_sent_byte_for_byte_and_its_letter_is_closed(log_config, command):
    with EventWriter(log_config, "test") as writer:
        for number in range(3):
            publish_dead_letter(log_config, writer, number, b"\x00value %d" % number)
    letters = {letter["key"]: letter for letter in listed(command)}
    assert sorted(letters) == ["key-0", "key-1", "key-2"]
    answer = command("retry", letters["key-1"]["letter"])
    assert (answer.returncode, answer.stdout) == (0, "1 sent again, 0 left open\n"), answer.stderr
    [event] = everything(log_config, "experiences")
    assert (event.key, event.value) == (b"key-1", b"\x00value 1")
    assert event.headers[:2] == (("mine", b"\xff\x00"), ("mine", b""))
    assert dict(event.headers)["rft.error.attempt"] == b"1"
    assert dict(event.headers)["rft.error.first-failure"] == b"1"
    assert [letter["key"] for letter in listed(command)] == ["key-0", "key-2"]
    states = {letter["key"]: letter["state"] for letter in listed(command, "--resolved")}
    assert states == {"key-0": "open", "key-1": "retried", "key-2": "open"}
    assert command("retry", letters["key-1"]["letter"]).stdout == "0 sent again, 0 left open\n"
    assert len(everything(log_config, "experiences")) == 1


def test_letters_are_chosen_by_stage_error_topic_and_time(log_config, command):
    with EventWriter(log_config, "test") as writer:
        publish_dead_letter(log_config, writer, 0, b"a", stage="score")
        publish_dead_letter(log_config, writer, 1, b"b", topic=topic_name(log_config, "tasks"))
    one, other = ["key-0"], ["key-1"]
    for words, keys in [
        (("--stage", "score"), one), (("--topic", "tasks"), other), (("--error", "fault 1"), other),
        (("--error", "ValueError"), one + other), (("--since", "1h"), one + other), (("--until", "1h"), []),
        (("--since", "2020-01-01", "--stage", "decode"), other),
    ]:  # fmt: skip
        assert sorted(letter["key"] for letter in listed(command, *words)) == keys, words
    assert command("discard", "--stage", "score").stdout == "1 discarded, 0 left open\n"
    assert [letter["key"] for letter in listed(command)] == other
    assert everything(log_config, "experiences") == []


def test_letters_that_failed_too_often_or_cannot_be_sent_stay_open_with_the_reason(log_config, command):
    with EventWriter(log_config, "test") as writer:
        publish_dead_letter(log_config, writer, 0, b"a", failures=4)
        publish_dead_letter(log_config, writer, 1, b"b", topic="another.topic")
        publish_dead_letter(log_config, writer, 2, b"c")
        publish_dead_letter(log_config, writer, 3, None, more=[(VALUE_OMITTED, b"123")], offset=10**6)
    answer = command("retry", "--all")
    assert answer.returncode == 1
    assert "has failed 5 times (--max-attempts 5)" in answer.stdout
    assert "came from another.topic" in answer.stdout
    assert "is too large to be kept here" in answer.stdout
    assert answer.stdout.endswith("1 sent again, 3 left open\n")
    assert [event.value for event in everything(log_config, "experiences")] == [b"c"]
    assert sorted(letter["key"] for letter in listed(command)) == ["key-0", "key-1", "key-3"]
    assert command("retry", "--error", "fault 0", "--max-attempts", "6").returncode == 0


def test_a_letter_without_its_value_is_sent_again_from_where_it_came_from(log_config, command):
    with EventWriter(log_config, "test") as writer:
        position = writer.send_bytes("experiences", b"the whole of it", key=b"key-0").get(5)
        publish_dead_letter(
            log_config,
            writer,
            0,
            None,
            more=[(VALUE_OMITTED, b"15")],
            partition=position.partition,
            offset=position.offset,
        )
    assert command("retry", "--all").returncode == 0
    assert [event.value for event in everything(log_config, "experiences")] == [b"the whole of it"] * 2


def test_thousands_are_sent_again_once_each(log_config, command):
    with EventWriter(log_config, "test") as writer:
        for number in range(3000):
            publish_dead_letter(log_config, writer, number, b"%d" % number)
    assert command("retry", "--stage", "decode").stdout == "3000 sent again, 0 left open\n"
    assert sorted(int(event.value or b"") for event in everything(log_config, "experiences")) == list(range(3000))
    assert listed(command) == []


def test_show_prints_headers_value_and_earlier_failures(log_config, command):
    with EventWriter(log_config, "test") as writer:
        publish_dead_letter(log_config, writer, 0, b"\x00\x01")
    [first] = listed(command)
    command("retry", "--all")
    [sent] = everything(log_config, "experiences")
    with EventWriter(log_config, "test") as writer:
        error, topic = ValueError("again"), topic_name(log_config, "experiences")
        facts = {"stage": "validate", "error": error, "topic": topic, "partition": 1, "offset": 7}
        headers = dead_letter_headers(sent.headers, now_ms=5, **facts)
        writer.send_bytes("dlq", sent.value, key=sent.key, headers=headers)
    [second] = listed(command)
    assert (second["attempt"], second["first_failure_ms"], second["stage"]) == (2, 1, "validate")
    [full] = json.loads(command("show", second["letter"], "--json").stdout)
    assert full["value_hex"] == "0001"
    assert [one["letter"] for one in full["earlier"]] == [first["letter"]]
    assert ["rft.dlq.retry-of", first["letter"]] in full["headers"]
    text = command("show", second["letter"]).stdout
    assert "attempt 1: decode: ValueError: fault 0" in text
    assert "attempt 2: validate: ValueError: again" in text


def test_only_named_letters_are_sent_or_closed(log_config, command):
    for verb in ("retry", "discard"):
        answer = command(verb)
        assert answer.returncode == 2
        assert "--all" in answer.stderr
    answer = command("retry", "0:999")
    assert answer.returncode == 2
    assert "0:999" in answer.stderr
    assert "90m" in command("list", "--since", "yesterday").stderr
    check_refusal(command("list", "--log.partitionz", "3"), 2, "unknown key 'log.partitionz'")


def test_the_list_is_readable(log_config, command):
    assert command("list").stdout == "no dead letters\n"
    with EventWriter(log_config, "test") as writer:
        for number in range(3):
            publish_dead_letter(log_config, writer, number, b"[bold]")
            writer.flush()
            time.sleep(0.01)  # the newest is the one with the latest time, in ms
    answer = command("list", "--limit", "2")
    assert "fault 2" in answer.stdout
    assert "fault 0" not in answer.stdout
    assert "and 1 older ones" in answer.stdout
    assert "3 letters: 3 decode ValueError" in answer.stdout

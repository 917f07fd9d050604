"""``rft dlq``: list, show, retry and discard dead letters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.commands.common import ANY_SETTING, ArchivePath, AsJson, ConfigPath, load

if TYPE_CHECKING:
    from rft.config import Config
    from rft.log.dead_letter_actions import Result
    from rft.log.dead_letter_index import DeadLetterIndex, Letter, Place, Selection
    from rft.log.views import LogView

dlq = typer.Typer(
    help="Look at dead letters, send them again, or close them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Stage = Annotated[str | None, typer.Option("--stage", metavar="NAME", help="Where it failed: decode, validate, score…")]
ErrorIs = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="The error's class, or part of its message.")
]
Topic = Annotated[str | None, typer.Option("--topic", metavar="NAME", help="Where it came from, e.g. experiences.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Not older: 2026-05-01T13:30 (UTC) or an age: 90m, 2h, 7d."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Older than that.")]
AllOfThem = Annotated[bool, typer.Option("--all", help="All that are open.")]


@dlq.command("list", context_settings=ANY_SETTING)
def list_letters(
    context: typer.Context,
    config: ConfigPath,
    stage: Stage = None,
    error: ErrorIs = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Also those retried or discarded.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Newest letters to print; 0: all.")] = 50,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """List open dead letters, the newest last, and count them by cause.

    Example: rft dlq list run.toml --stage decode --since 2h
    """
    loaded, places = _load(context, config)
    selection = _selection(loaded, places, stage, error, topic, since, until)
    with _open(loaded, archive) as view:
        book = _read(view, selection)
    letters = book.all() if resolved else book.open()
    if as_json:
        print(json.dumps([_as_json(book, letter) for letter in letters], indent=1))
        return
    from infra.commands.letters import show_letters

    show_letters(book, letters, limit)


@dlq.command("show", context_settings=ANY_SETTING)
def show(
    context: typer.Context,
    config: ConfigPath,
    stage: Stage = None,
    error: ErrorIs = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Show letters in full: headers, value, the failures before this one. Name them after CONFIG, as PARTITION:OFFSET.

    Example: rft dlq show run.toml 2:17 --json
    """
    loaded, places = _load(context, config)
    selection = _selection(loaded, places, stage, error, topic, since, until)
    with _open(loaded, archive) as view:
        book = _read(view)
        letters = [letter for letter in book.all() if selection.takes(letter)]
        _refuse_unknown(places, letters)
        full = []
        for letter in letters:
            event = view.fetch("dlq", *letter.place)
            full.append(_as_json(book, letter) | _contents(book, letter, event))
    if as_json:
        print(json.dumps(full, indent=1))
        return
    from infra.commands.letters import show_in_full

    show_in_full(full)


@dlq.command("retry", context_settings=ANY_SETTING)
def retry(
    context: typer.Context,
    config: ConfigPath,
    stage: Stage = None,
    error: ErrorIs = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    everything: AllOfThem = False,
    max_attempts: Annotated[
        int, typer.Option("--max-attempts", min=1, help="Leave alone what has failed so often.")
    ] = 5,
) -> None:
    """Send the events of open letters again, byte for byte, to the topics they came from.

    One that fails again becomes a new letter, with the next attempt's number and the first failure's time. Nothing is
    sent again by itself. Name letters after CONFIG, as PARTITION:OFFSET, or give filters, or --all.

    Example: rft dlq retry run.toml --stage decode --error "unknown schema"
    """
    loaded, places = _load(context, config)
    selection = _selection(loaded, places, stage, error, topic, since, until)
    _refuse_everything(selection, everything)
    from infra.commands.letters import progress_bar
    from rft.log.dead_letter_actions import retry as send_again

    with _open(loaded, None) as view:
        letters = _chosen(_read(view, selection), places)
        with progress_bar("sending again") as progress:
            result = send_again(loaded, view, letters, max_attempts, progress)
    _conclude("sent again", result)


@dlq.command("discard", context_settings=ANY_SETTING)
def discard(
    context: typer.Context,
    config: ConfigPath,
    stage: Stage = None,
    error: ErrorIs = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    everything: AllOfThem = False,
) -> None:
    """Close open letters without sending their events again. They stay on the log and can be listed with --resolved.

    Name letters after CONFIG, as PARTITION:OFFSET, or give filters, or --all.

    Example: rft dlq discard run.toml 2:17 3:4
    """
    loaded, places = _load(context, config)
    selection = _selection(loaded, places, stage, error, topic, since, until)
    _refuse_everything(selection, everything)
    from infra.commands.letters import progress_bar
    from rft.log.dead_letter_actions import discard as close

    with _open(loaded, None) as view:
        letters = _chosen(_read(view, selection), places)
    with progress_bar("closing") as progress:
        result = close(loaded, letters, progress)
    _conclude("discarded", result)


def _load(context: typer.Context, config: Any) -> tuple[Config, list[Place]]:
    """The configuration, and the letters named among the words after it."""
    from infra.launcher.folder import with_running_broker
    from rft.log.dead_letter_index import parse_place

    places, settings = [], []
    words = iter(context.args)
    for word in words:
        place = parse_place(word)
        if place is not None:
            places.append(place)
            continue
        settings.append(word)
        if word.startswith("--") and "=" not in word:
            settings += [value for value in (next(words, None),) if value is not None]
    context.args[:] = settings
    return with_running_broker(load(config, context)), places


def _selection(
    config: Config,
    places: Sequence[Place],
    stage: str | None,
    error: str | None,
    topic: str | None,
    since: str | None,
    until: str | None,
) -> Selection:
    from infra.commands.letters import moment
    from rft.log.dead_letter_index import Selection
    from rft.log.topics import ENTITIES, topic_name

    return Selection(
        places=frozenset(places) or None,
        stage=stage,
        error=error,
        topic=topic_name(config, topic) if topic is not None and topic in ENTITIES else topic,
        since_ms=moment(since, "--since"),
        until_ms=moment(until, "--until"),
    )


def _open(config: Config, archive: str | None) -> LogView:
    from rft.log.opening import open_log

    return open_log(config, archive)


def _read(view: LogView, selection: Selection | None = None) -> DeadLetterIndex:
    from rft.log.dead_letter_actions import read_book

    return read_book(view, selection)


def _refuse_everything(selection: Selection, everything: bool) -> None:
    from rft.log.dead_letter_index import Selection

    if selection == Selection() and not everything:
        raise typer.BadParameter("name letters as PARTITION:OFFSET after CONFIG, or give a filter, or --all")


def _refuse_unknown(places: Sequence[Place], letters: Sequence[Letter]) -> None:
    found = {letter.place for letter in letters}
    missing = [f"{partition}:{offset}" for partition, offset in places if (partition, offset) not in found]
    if missing:
        raise typer.BadParameter(f"there is no such letter: {', '.join(missing)} (`rft dlq list` names them)")


def _chosen(book: DeadLetterIndex, places: Sequence[Place]) -> list[Letter]:
    _refuse_unknown(places, book.all())
    return book.open()


def _conclude(what: str, result: Result) -> None:
    for name, why in result.kept.items():
        print(f"{name} stays open: {why}")
    print(f"{result.done} {what}, {len(result.kept)} left open")
    raise typer.Exit(1 if result.kept else 0)


def _as_json(book: DeadLetterIndex, letter: Letter) -> dict[str, Any]:
    return {
        "letter": letter.name,
        "state": book.state(letter),
        "time_ms": letter.time_ms,
        "stage": letter.stage,
        "error": letter.error,
        "message": letter.message,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "attempt": letter.attempt,
        "first_failure_ms": letter.first_failure_ms,
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "size_bytes": letter.size_bytes,
    }


def _contents(book: DeadLetterIndex, letter: Letter, event: Any) -> dict[str, Any]:
    from infra.commands.letters import earlier, record_or_error

    return {
        "headers": [
            [name, None if value is None else value.decode("utf-8", "backslashreplace")]
            for name, value in event.headers
        ],
        "value_hex": (event.value or b"")[:256].hex(),
        "record": record_or_error(event),
        "earlier": [_as_json(book, one) for one in earlier(book, letter)],
    }

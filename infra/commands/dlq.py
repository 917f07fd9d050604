"""``rft dlq``: lists, shows, retries and discards dead letters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.common import ANY_SETTING, ArchivePath, AsJson, ConfigPath, Since, Until, load, parse_time

if TYPE_CHECKING:
    from rft.config import Config
    from rft.log.coordinates import LogPosition
    from rft.log.dead_letter_actions import ActionResult
    from rft.log.dead_letter_index import DeadLetterIndex, DeadLetterRecord, DeadLetterSelection

dlq = typer.Typer(
    help="List dead letters, send their events again, or close them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Stage = Annotated[
    str | None, typer.Option("--stage", metavar="NAME", help="decode, validate, score, reward or process.")
]
ErrorIs = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="The error's class, or part of its message.")
]
Topic = Annotated[
    str | None, typer.Option("--topic", metavar="NAME", help="The topic it was read from, e.g. experiences.")
]
AllOfThem = Annotated[bool, typer.Option("--all", help="Every open dead letter.")]


@dlq.command("list", context_settings=ANY_SETTING)
def list_letters(
    context: typer.Context,
    config: ConfigPath,
    stage: Stage = None,
    error: ErrorIs = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Include those retried or discarded.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Print only the newest; 0: all.")] = 50,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """List open dead letters, the newest last, and count them by cause.

    Example: rft dlq list run.toml --stage decode --since 2h
    """
    loaded, positions = _load(context, config)
    selection = _selection(loaded, positions, stage, error, topic, since, until)
    from infra.commands import dlq_format
    from infra.launcher.log_access import reachable_log
    from rft.log.dead_letter_actions import read_dead_letters
    from rft.log.opening import open_log

    with reachable_log(loaded, "rft dlq list", archive=archive) as loaded, open_log(loaded, archive) as view:
        index = read_dead_letters(view, selection)
    letters = index.all() if resolved else index.open()
    if as_json:
        print(json.dumps([dlq_format.as_json(index, letter) for letter in letters], indent=1))
    else:
        dlq_format.show_table(index, letters, limit)


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
    """Show dead letters in full: headers, value, earlier failures. Name them after CONFIG, as PARTITION:OFFSET.

    Example: rft dlq show run.toml 2:17 --json
    """
    loaded, positions = _load(context, config)
    selection = _selection(loaded, positions, stage, error, topic, since, until)
    from infra.commands import dlq_format
    from infra.launcher.log_access import reachable_log
    from rft.log.dead_letter_actions import read_dead_letters
    from rft.log.opening import open_log

    with reachable_log(loaded, "rft dlq show", archive=archive) as loaded, open_log(loaded, archive) as view:
        index = read_dead_letters(view)  # all of them: earlier failures may lie outside the selection
        letters = [letter for letter in index.all() if selection.selects(letter)]
        _refuse_unknown(positions, letters)
        full = [dlq_format.in_full(index, letter, view.fetch("dlq", *letter.position)) for letter in letters]
    if as_json:
        print(json.dumps(full, indent=1))
    else:
        dlq_format.show_in_full(full)


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
        int, typer.Option("--max-attempts", min=1, help="Leave alone what has failed this many times.")
    ] = 5,
) -> None:
    """Send the events of open dead letters again, byte for byte, to the topics they came from.

    An event that fails again becomes a new dead letter, with the next attempt's number and the first failure's time.
    Nothing is sent again automatically. Name dead letters after CONFIG, as PARTITION:OFFSET, or give filters, or --all.

    Example: rft dlq retry run.toml --stage decode --error "unknown schema"
    """
    loaded, positions = _load(context, config)
    selection = _selection(loaded, positions, stage, error, topic, since, until)
    _refuse_everything(selection, everything)
    from infra.commands.dlq_format import progress_bar
    from infra.launcher.log_access import reachable_log
    from rft.log import dead_letter_actions
    from rft.log.opening import open_log

    with reachable_log(loaded, "rft dlq retry") as loaded, open_log(loaded) as view:
        letters = _open_ones(dead_letter_actions.read_dead_letters(view, selection), positions)
        with progress_bar("sending again") as progress:
            result = dead_letter_actions.retry(loaded, view, letters, max_attempts, progress)
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
    """Close open dead letters without sending their events again. They stay on the log; --resolved lists them.

    Name dead letters after CONFIG, as PARTITION:OFFSET, or give filters, or --all.

    Example: rft dlq discard run.toml 2:17 3:4
    """
    loaded, positions = _load(context, config)
    selection = _selection(loaded, positions, stage, error, topic, since, until)
    _refuse_everything(selection, everything)
    from infra.commands.dlq_format import progress_bar
    from infra.launcher.log_access import reachable_log
    from rft.log import dead_letter_actions
    from rft.log.opening import open_log

    with reachable_log(loaded, "rft dlq discard") as loaded, open_log(loaded) as view:
        letters = _open_ones(dead_letter_actions.read_dead_letters(view, selection), positions)
    with progress_bar("closing") as progress:
        result = dead_letter_actions.discard(loaded, letters, progress)
    _conclude("discarded", result)


def _load(context: typer.Context, config: Path) -> tuple[Config, list[LogPosition]]:
    """Return the configuration, and the dead letters that the arguments after it name."""
    from rft.log.dead_letter_index import parse_position

    positions: list[LogPosition] = []
    settings: list[str] = []
    arguments = iter(context.args)
    for argument in arguments:
        position = parse_position(argument)
        if position is not None:
            positions.append(position)
            continue
        settings.append(argument)
        if argument.startswith("--") and "=" not in argument:
            settings += [value for value in (next(arguments, None),) if value is not None]
    context.args[:] = settings
    return load(config, context), positions


def _selection(
    config: Config,
    positions: Sequence[LogPosition],
    stage: str | None,
    error: str | None,
    topic: str | None,
    since: str | None,
    until: str | None,
) -> DeadLetterSelection:
    from rft.log.dead_letter_index import DeadLetterSelection
    from rft.log.topics import ENTITIES, topic_name

    return DeadLetterSelection(
        positions=frozenset(positions) or None,
        stage=stage,
        error=error,
        topic=topic_name(config, topic) if topic is not None and topic in ENTITIES else topic,
        since_ms=parse_time(since, "--since"),
        until_ms=parse_time(until, "--until"),
    )


def _refuse_everything(selection: DeadLetterSelection, everything: bool) -> None:
    from rft.log.dead_letter_index import DeadLetterSelection

    if selection == DeadLetterSelection() and not everything:
        raise typer.BadParameter("name letters as PARTITION:OFFSET after CONFIG, or give a filter, or --all")


def _refuse_unknown(positions: Sequence[LogPosition], letters: Sequence[DeadLetterRecord]) -> None:
    found = {letter.position for letter in letters}
    missing = [f"{at.partition}:{at.offset}" for at in positions if at not in found]
    if missing:
        raise typer.BadParameter(f"there is no such letter: {', '.join(missing)} (`rft dlq list` names them)")


def _open_ones(index: DeadLetterIndex, positions: Sequence[LogPosition]) -> list[DeadLetterRecord]:
    _refuse_unknown(positions, index.all())
    return index.open()


def _conclude(action: str, result: ActionResult) -> None:
    for name, reason in result.left_open.items():
        print(f"{name} stays open: {reason}")
    print(f"{result.done} {action}, {len(result.left_open)} left open")
    raise typer.Exit(1 if result.left_open else 0)

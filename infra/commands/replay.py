"""``rft replay``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.commands.common import ArchivePath, AsJson, ConfigPath, Since, Until, load, parse_time

if TYPE_CHECKING:
    from consumers.replay.rescoring import Rescorer
    from consumers.replay.selection import Selection
    from rft.config import Config
    from rft.log.views import LogView

TRAIN = "train"


def replay(
    context: typer.Context,
    config: ConfigPath,
    to: Annotated[
        str, typer.Option("--to", metavar="train|FILE", help="An offline training run, or FILE.(jsonl|parquet|avro).")
    ],
    steps: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Only what these steps of trainer.model_key trained, in order."),
    ] = None,
    versions: Annotated[str | None, typer.Option(metavar="A:B", help="Only what these weight versions wrote.")] = None,
    since: Since = None,
    until: Until = None,
    offsets: Annotated[
        list[str] | None, typer.Option(metavar="P=A:B", help="Offsets of partition P of ready; may be repeated.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="A filter, e.g. 'reward > 0 and written_tokens < 50'.")
    ] = None,
    rescore: Annotated[bool, typer.Option("--rescore", help="Score again with processor.rewards of CONFIG.")] = False,
    latest_rewards: Annotated[
        bool, typer.Option("--latest-rewards", help="Use the newest revisions of external rewards.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="To train: how often to go through the selection.")] = 1,
    weights: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="To train: start from this model, not policy.model.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="To train: name of the folder under <run>/replays/.")
    ] = None,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Use events of the log again: train on them offline, or write them to a file.

    All conditions given must hold; both ends of A:B are included, and either may be left out. The same selection
    gives the same batches in the same order, and on a CPU bit-identical weights. Reads the live log; with an embedded
    broker that has ended, the run's archive.

    Example: rft replay examples/quickstart/quickstart.toml --where "reward > 0" --to good.jsonl
    """
    loaded = load(config, context)
    from rich.console import Console

    from consumers.replay import files
    from consumers.replay.reader import ReplayReader
    from infra.commands.stages import Stages
    from infra.hub_downloads import fetch_all, pinned
    from infra.launcher.log_access import reachable_log
    from rft.log.opening import open_log

    selection = _selection(steps, versions, since, until, offsets, where)
    if to != TRAIN:
        _check_only_for_training(epochs=epochs != 1, weights=weights is not None, name=name is not None)
        files.writer_for(Path(to))
    else:
        loaded = fetch_all(pinned(loaded), Console(stderr=True), imports=False)
    with (
        reachable_log(loaded, "rft replay", archive=archive) as loaded,
        open_log(loaded, archive) as view,
        Stages(Console(stderr=True)) as stages,
    ):
        rescorers, rewards = _rescorers(loaded, view, rescore, latest_rewards)
        reader = ReplayReader(loaded, view, selection, rescorers)
        if to == TRAIN:
            from consumers.replay.train import ReplayPlan, replay_folder, train

            folder = replay_folder(loaded.run.path, name)
            result = train(loaded, view, reader, ReplayPlan(folder, rewards, epochs, weights), stages)
        else:
            written = files.write_file(Path(to), reader.read(stages("reading")))
            result = {"file": to, "written": written, "source": view.name, "selection": selection.to_json()}
            result |= {"rewards": rewards, "events": asdict(reader.counts)}
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        print(_summary(result))


def _selection(
    steps: str | None,
    versions: str | None,
    since: str | None,
    until: str | None,
    offsets: list[str] | None,
    where: str | None,
) -> Selection:
    from consumers.replay.selection import Range, Selection, parse_offsets

    return Selection(
        offsets=parse_offsets(offsets or ()),
        since_ms=parse_time(since, "--since"),
        until_ms=parse_time(until, "--until"),
        versions=None if versions is None else Range.parse(versions, "--versions"),
        steps=None if steps is None else Range.parse(steps, "--steps"),
        where=where,
    )


def _check_only_for_training(**given: bool) -> None:
    wrong = [f"--{option}" for option, is_given in given.items() if is_given]
    if wrong:
        raise typer.BadParameter(f"{', '.join(wrong)} goes with --to {TRAIN} only")


def _rescorers(config: Config, view: LogView, rescore: bool, latest_rewards: bool) -> tuple[list[Rescorer], str]:
    """Return what changes each event's reward, and what to call the result."""
    from consumers.replay import rescoring
    from consumers.replay.reader import external_rewards

    rescorers = [("rescored", rescoring.by_functions(config.processor))] if rescore else []
    if latest_rewards:
        values = rescoring.latest_values(external_rewards(view))
        rescorers.append(("latest", rescoring.by_external_rewards(values, config.processor)))
    return [rescorer for _, rescorer in rescorers], ", ".join(name for name, _ in rescorers) or "recorded"


def _summary(result: Mapping[str, Any]) -> str:
    events = result["events"]
    lines = [f"{result['source']}: {events['read']:,} events read, {events['selected']:,} selected"]
    others = {name: events[name] for name in ("repeated", "unreadable") if events[name]} | result.get("skipped", {})
    if others:
        lines.append("left out: " + ", ".join(f"{name} {count:,}" for name, count in others.items()))
    if "file" in result:
        return "\n".join([*lines, f"{result['written']:,} events in {result['file']}"])
    accuracy = result["accuracy"]
    lines.append(
        f"{result['steps']:,} steps on {result['trained']:,} experiences, {result['epochs']} epoch(s), "
        f"batches {result['batches_sha256']}"
    )
    if accuracy["before"] is not None and accuracy["after"] is not None:
        lines.append(
            f"held-out accuracy {accuracy['before']:.1%} → {accuracy['after']:.1%} ({accuracy['tasks']} tasks)"
        )
    lines.append(f"weights {result['weights']['folder']}\nsha256  {result['weights']['sha256']}")
    return "\n".join(lines)

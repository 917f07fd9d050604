"""Renders ``report.html``: one file that needs no network. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any

from consumers.report.charts import Line, Share, figures_table, line_chart, smooth, stacked_bars
from consumers.report.evaluations import evaluation_cards
from consumers.report.learning import moved
from consumers.report.long_tail import long_tail_card
from consumers.report.measures import NOT_SCORED, score_text
from consumers.report.outcome import outcome_section
from consumers.report.reducer import Rollout, RunSummary, Step
from consumers.report.report_json import MAX_TEXT_CHARS, has_shares, samples, scores, steps_in_order, throughput
from consumers.report.transfers import transfers_card
from rft.config import Config

SMOOTHING = 20
"""The bold reward curve averages over one SMOOTHING-th of all steps."""


def render(report: Mapping[str, Any], summary: RunSummary, config: Config) -> str:
    """Return the page as text."""
    style = files("consumers.report").joinpath("page.css").read_text(encoding="utf-8")
    title = escape(f"{report['run']} · Stream-RFT")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
{style}</style></head><body><main>
{_header(report, summary, config)}
{outcome_section(report)}
{_tiles(report)}
{_charts(report, summary, config)}
{_samples(samples(summary), summary.final_version, marks=report["held_out"]["measure"] == "accuracy")}
{_footer(report, config)}
</main></body></html>
"""


def _header(report: Mapping[str, Any], summary: RunSummary, config: Config) -> str:
    style = {"finished": "badge", "failed": "badge no"}.get(report["outcome"], "badge warn")
    badge = f'<span class="{style}">{report["outcome"]}</span>'
    if report["learning"]:
        badge += '<span class="badge warn">with warnings</span>'
    if not report["complete"]:
        badge += '<span class="badge no">the log was not read to its end: counts are too low; see rft report</span>'
    start = datetime.fromtimestamp(summary.first_ms / 1000, UTC) if summary.first_ms else None
    began = start.strftime("%Y-%m-%d %H:%M UTC") if start else ""
    facts = [config.tasks.source, config.algorithm.name.upper(), f"{report['broker']} broker", began]
    return (
        f"<header><h1>{escape(report['run'])}</h1>{badge}"
        f'<span class="dim">{escape(" · ".join(fact for fact in facts if fact))}</span></header>'
    )


def _tiles(report: Mapping[str, Any]) -> str:
    experiences, staleness, trainer = report["experiences"], report["staleness"], report["trainer"]
    tiles = [
        _held_out_tile(report["held_out"]),
        _tile(f"{report['steps']:,}", "gradient steps"),
        _tile(_duration(report["wall_s"]), "wall time"),
        _tile(f"{experiences['trained']:,}", "experiences trained"),
        _tile(f"{report['throughput']['experiences_per_s']:,.0f}/s", "experiences published"),
        _tile(f"{trainer['idle_share']:.0%}", f"trainer idle; {trainer['step_s'] * 1000:,.0f} ms a step"),
        _tile(
            f"{staleness['mean']:.2f}",
            f"mean staleness; max {staleness['max']}, bound {staleness['bound']}",
        ),
    ]
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _held_out_tile(held_out: dict[str, Any]) -> str:
    before, after, what = held_out["before"], held_out["after"], f"held-out {held_out['measure']}"
    share = held_out["measure"] == "accuracy"
    if not held_out["scored"]:
        return _tile("–", f"{what}: {NOT_SCORED}", main=True)
    if before is None:
        return _tile("–", f"{what}: not evaluated", main=True)
    if after is None:
        return _tile(score_text(before, share=share), f"{what} before, {held_out['tasks']} tasks", main=True)
    gain = after - before
    style = " same" if not moved(held_out) else " loss" if gain < 0 else ""
    points = f"{gain * 100:+.1f} points" if share else f"{gain:+.3f}"
    scores = f"{score_text(before, share=share)} → {score_text(after, share=share)}"
    return _tile(f'{scores}<span class="gain{style}">{points}</span>', f"{what}, {held_out['tasks']} tasks", main=True)


def _charts(report: Mapping[str, Any], summary: RunSummary, config: Config) -> str:
    steps = steps_in_order(summary)
    rewards = [(step.number, step.reward_mean) for step in steps]
    staleness = [(step.number, step.staleness[step.staleness >= 0]) for step in steps]
    staleness = [(number, values) for number, values in staleness if values.size]
    transfers, trainers = transfers_card(report["weights"], steps), report["trainers"]
    long_tail = long_tail_card(report["long_tail"])
    cards = [
        _card(
            "Reward",
            "mean of each step's experiences",
            line_chart(
                [
                    Line("each step", rewards, "faint"),
                    Line("moving average", smooth(rewards, max(1, len(rewards) // SMOOTHING)), "a"),
                ],
                x_label="step",
            ),
        ),
        *_held_out_cards(report, summary, config),
        _card(
            "Staleness",
            "weight versions between writing and training",
            line_chart(
                [
                    Line("mean", [(number, float(values.mean())) for number, values in staleness], "a"),
                    Line("max", [(number, float(values.max())) for number, values in staleness], "b", peaks=True),
                ],
                x_label="step",
                y_range=(0, max(1, config.trainer.max_staleness)),
            ),
        ),
        _card(
            "Throughput",
            "distinct experiences a second",
            line_chart([Line("experiences/s", throughput(summary), "a")], x_label="seconds"),
        ),
        *_learning_rate(steps),
        *([_card("Other trainers", "on the same log", _other_trainers(trainers))] if trainers else []),
        *([_card("The long tail", "rollouts that came in time and too late", long_tail)] if long_tail else []),
        *([_card("Weight versions", "seconds until all members hold one", transfers)] if transfers else []),
        _card("Where the time went", "", _time(report)),
        _card("Experiences", "counted by id, from the log", _counts(report["experiences"])),
    ]
    cards += [_card(*card) for card in evaluation_cards(report["evaluations"], config)]
    return f'<section class="grid2">{"".join(cards)}</section>'


def _learning_rate(steps: Sequence[Step]) -> list[str]:
    """Return a card if the learning rate has changed in the run."""
    rates = [(step.number, step.learning_rate) for step in steps]
    if len({rate for _, rate in rates}) < 2:
        return []
    chart = line_chart([Line("learning rate", rates, "a")], x_label="step")
    return [_card("Learning rate", "of each step", chart)]


def _held_out_cards(report: Mapping[str, Any], summary: RunSummary, config: Config) -> list[str]:
    """Return a chart of the sets whose answers are right or wrong, and one of the others, if there are any."""
    shares = [name for name in config.eval_sets if has_shares(summary, name)]
    rewarded = [name for name in config.eval_sets if name not in shares]
    what = "tasks never trained on" if report["held_out"]["scored"] else NOT_SCORED
    cards = []
    if shares or not rewarded:
        lines = _held_out_lines(summary, config, shares, "accuracy")
        chart = line_chart(lines, x_label="weight version", y_range=(0, 1), percent=True)
        cards.append(_card("Held-out accuracy", what, chart))
    if rewarded:
        lines = _held_out_lines(summary, config, rewarded, "mean reward")
        cards.append(_card("Held-out reward", what, line_chart(lines, x_label="weight version")))
    return cards


def _held_out_lines(summary: RunSummary, config: Config, names: Sequence[str], measure: str) -> list[Line]:
    """Return one line for each of these held-out sets."""
    styles = itertools.cycle("cabed")
    return [
        Line(
            measure if len(config.eval_sets) == 1 else config.eval_sets[name].title,
            [(float(version), score) for version, score, _ in scores(summary, name)],
            next(styles),
            marks=True,
        )
        for name in names
    ]


def _time(report: Mapping[str, Any]) -> str:
    trainer, explorers = report["trainer"]["seconds"], report["explorers"]
    return stacked_bars(
        [
            (
                "Trainer",
                [
                    Share("gradient steps", trainer["step"], "a"),
                    Share("reading experiences", trainer["read"], "b"),
                    Share("publishing weights", trainer["publish"], "c"),
                    Share("checkpoints", trainer["checkpoint"], "e"),
                    Share("idle, waiting for experiences", trainer["idle"], "d"),
                ],
            ),
            (
                "Explorers",
                [
                    Share("generating", explorers["generating_s"], "a"),
                    Share("fetching weights", explorers["resync_s"], "c"),
                    Share("waiting for tasks or weights", explorers["waiting_s"], "d"),
                ],
            ),
        ]
    )


def _other_trainers(trainers: Mapping[str, Any]) -> str:
    """Render what each trainer learned from: the number of its steps and experiences, and their reward."""
    rows = "".join(
        f'<tr><td>{escape(key)}</td><td class="n">{figures["steps"]:,} steps</td>'
        f'<td class="n">{figures["trained"]:,} experiences</td></tr>'
        for key, figures in trainers.items()
    )
    lines = [
        Line(key, smooth(figures["reward"], max(1, len(figures["reward"]) // SMOOTHING)), "abcde"[index % 5])
        for index, (key, figures) in enumerate(trainers.items())
    ]
    return f"<table>{rows}</table>{line_chart(lines, x_label='step')}"


def _counts(experiences: Mapping[str, Any]) -> str:
    rows = [
        ("published", "events in the topic", experiences["published"]),
        ("duplicates", "published again with the same id, counted once", experiences["duplicates"]),
        ("dead letters", _causes(experiences["dead_letters_by_class"]) or "malformed", experiences["dead_lettered"]),
        ("ready", "scored and released to the trainer", experiences["ready"]),
        ("evaluated", "held-out tasks, never trained", experiences["evaluated"]),
        ("filtered", _causes(experiences["filtered_by_cause"]) or "by the processors", experiences["filtered"]),
        (
            "dropped",
            _causes(experiences["dropped_by_trainer"]) or "by the trainer",
            sum(experiences["dropped_by_trainer"].values()),
        ),
        ("trained", "in the lineage of the newest weights", experiences["trained"]),
    ]
    return figures_table((name, what, f"{count:,}") for name, what, count in rows)


def _samples(pairs: Sequence[tuple[Rollout, Rollout]], final_version: int | None, *, marks: bool) -> str:
    if not pairs:
        return ""
    rows = "".join(
        f'<tr><td class="text">{_text(before.prompt)}</td><td class="text dim">{_text(before.answer or "")}</td>'
        f"<td>{_response(before, marks=marks)}</td><td>{_response(after, marks=marks)}</td></tr>"
        for before, after in pairs
    )
    headings = ("prompt", "answer", "before (version 0)", f"after (version {final_version})")
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{rows}</table></div>'
    return _card("Sample rollouts", "held-out tasks picked by position, not by result", table)


def _response(rollout: Rollout, *, marks: bool) -> str:
    """Render a response with its mark, or with its reward where nothing is right or wrong."""
    if not marks:
        return f'<span class="dim">{rollout.reward:.3f} </span><span class="text">{_text(rollout.response)}</span>'
    mark = '<span class="mark-right">✓</span>' if rollout.correct else '<span class="mark-wrong">✗</span>'
    return f'{mark}<span class="text">{_text(rollout.response)}</span>'


def _footer(report: Mapping[str, Any], config: Config) -> str:
    versions = " · ".join(f"{name} {number}" for name, number in report["versions"].items())
    return (
        f"<footer><p>{escape(versions)}</p><p>Seed {config.run.seed}. The configuration is in config.resolved.toml, "
        "and all figures are in report.json next to this file.</p></footer>"
    )


def _card(title: str, what: str, content: str) -> str:
    small = f"<small>{escape(what)}</small>" if what else ""
    return f'<div class="card"><h2>{escape(title)}{small}</h2>{content}</div>'


def _tile(value: str, what: str, *, main: bool = False) -> str:
    return f'<div class="tile{" main" if main else ""}"><b>{value}</b><span>{escape(what)}</span></div>'


def _text(text: str) -> str:
    short = text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + " …"
    return escape(short)


def _causes(causes: Mapping[str, int]) -> str:
    return ", ".join(f"{cause} {count:,}" for cause, count in causes.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h" if hours else f"{minutes}:{rest:02} min" if minutes else f"{rest} s"

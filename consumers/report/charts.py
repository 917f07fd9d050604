"""Renders charts as inline SVG, and tables. Colors are CSS classes, so the page's light and dark themes apply. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 14, 34
MAX_POINTS = 280
"""Points of a longer curve are averaged: a line of this width cannot show more."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. ``style`` is a CSS class: ``a``, ``b``, … or ``faint``."""

    name: str
    points: Points
    style: str = "a"
    marks: bool = False
    peaks: bool = False
    """Keep the highest of neighboring points, not their mean, when there are too many."""


@dataclass(frozen=True, slots=True)
class Share:
    """One part of a stacked bar."""

    name: str
    value: float
    style: str


def figures_table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Render rows of a name, its meaning and a figure."""
    body = "".join(
        f'<tr><td>{name}</td><td class="dim">{escape(what)}</td><td class="n">{figure}</td></tr>'
        for name, what, figure in rows
    )
    return f"<table>{body}</table>"


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    percent: bool = False,
    x_names: Mapping[float, str] | None = None,
) -> str:
    """Render curves over a common x axis as SVG, or the text "nothing was measured" if no line has points.

    Args:
        lines: the curves.
        x_label: below the axis.
        y_range: lowest and highest value of the y axis; by default, those of the lines and 0.
        percent: y values are shares.
        x_names: labels of the x axis in place of its numbers.
    """
    lines = [replace(line, points=thin(line.points, peaks=line.peaks)) for line in lines if line.points]
    if not lines:
        return '<p class="empty">nothing was measured</p>'
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_ticks = ticks(*(y_range or (min(0.0, *ys), max(ys))))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for tick in y_ticks:
        _, y = at(x_low, tick)
        label = f"{tick:.0%}" if percent else number(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>')
    for tick in x_names if x_names is not None else ticks(x_low, x_high, inside=True):
        x, _ = at(tick, y_low)
        label = escape(x_names[tick]) if x_names is not None else number(tick)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>')
    for line in lines:
        pixels = [at(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
        parts.append(
            f'<polyline class="line {line.style}" points="{path}"><title>{escape(line.name)}</title></polyline>'
        )
        if line.marks or len(pixels) == 1:
            parts += [
                f'<circle class="mark {line.style}" cx="{px:.1f}" cy="{py:.1f}" r="3.5">'
                f"<title>{number(x)}: {f'{y:.1%}' if percent else number(y)}</title></circle>"
                for (px, py), (x, y) in zip(pixels, line.points, strict=True)
            ]
    parts.append("</svg>")
    names = legend([(line.name, line.style) for line in lines]) if len(lines) > 1 else ""
    return "".join(parts) + names


def stacked_bars(rows: Sequence[tuple[str, Sequence[Share]]]) -> str:
    """Render a horizontal bar of shares for each row."""
    parts = []
    for title, shares in rows:
        total = sum(share.value for share in shares)
        if total <= 0:
            continue
        parts.append(f'<div class="bar-title">{escape(title)} <span>{total:,.1f} s</span></div><div class="bar">')
        for share in shares:
            part = share.value / total
            text = f"{part:.0%}" if part >= 0.06 else ""
            tip = f"{escape(share.name)}: {share.value:,.1f} s ({part:.1%})"
            parts.append(f'<div class="{share.style}" style="width:{part * 100:.2f}%" title="{tip}">{text}</div>')
        parts.append("</div>" + legend([(share.name, share.style) for share in shares]))
    return "".join(parts) or '<p class="empty">nothing was measured</p>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Render names next to their colors."""
    items = "".join(f'<span><i class="{style}"></i>{escape(name)}</span>' for name, style in entries)
    return f'<div class="legend">{items}</div>'


def smooth(points: Points, span: int) -> list[tuple[float, float]]:
    """Return the mean of the last ``span`` values at each point."""
    values = [y for _, y in points]
    smoothed = []
    for index, (x, _) in enumerate(points):
        window = values[max(0, index + 1 - span) : index + 1]
        smoothed.append((x, sum(window) / len(window)))
    return smoothed


def thin(points: Points, most: int = MAX_POINTS, *, peaks: bool = False) -> list[tuple[float, float]]:
    """Return at most ``most`` points, each the mean (or, with ``peaks``, the highest) of its neighbors."""
    if len(points) <= most:
        return list(points)
    edges = [index * len(points) // most for index in range(most + 1)]
    thinned = []
    for start, end in itertools.pairwise(edges):
        xs, ys = zip(*points[start:end], strict=True)
        thinned.append((sum(xs) / len(xs), max(ys) if peaks else sum(ys) / len(ys)))
    return thinned


def ticks(low: float, high: float, *, inside: bool = False, about: int = 6) -> list[float]:
    """Return round numbers from below ``low`` to above ``high``, or only those between if ``inside``."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [round(index * step, 10) for index in range(first, last + 1)]
    slack = step * 1e-6
    return [mark for mark in marks if low - slack <= mark <= high + slack] if inside else marks


def number(value: float) -> str:
    """Return a number as short text without trailing zeros: ``1,200``, ``0.25``, ``2e-05``."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.3f}".rstrip("0").rstrip(".") or "0"

"""Covers all pairs of values of some factors with few rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

Row = dict[str, str]


def all_rows(factors: Mapping[str, Sequence[str]], allowed: Callable[[Row], bool]) -> list[Row]:
    """Return every combination of values that is allowed."""
    rows = (dict(zip(factors, values, strict=True)) for values in product(*factors.values()))
    return [row for row in rows if allowed(row)]


def pairs_of(row: Row) -> set[frozenset[tuple[str, str]]]:
    """Return the pairs of (factor, value) that a row has."""
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def pairwise(rows: Sequence[Row]) -> list[Row]:
    """Choose rows that have each pair which any of ``rows`` has: at each turn the first with the most new pairs."""
    missing: set[frozenset[tuple[str, str]]] = set().union(*map(pairs_of, rows))
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(pairs_of(row) & missing))
        chosen.append(best)
        missing -= pairs_of(best)
    return chosen

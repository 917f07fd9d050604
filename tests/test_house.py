"""Imports only go down: schemas, rft, producers and consumers, infra."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "schemas": set(),
    "rft": {"schemas"},
    "producers": {"schemas", "rft"},
    "consumers": {"schemas", "rft"},
    "infra": {"schemas", "rft", "producers", "consumers"},
}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("floor", BELOW)
def test_a_floor_imports_only_from_floors_below(floor):
    files = list((ROOT / floor).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(outside)
        for path in files
        if (outside := (imported(path) & BELOW.keys()) - BELOW[floor] - {floor})
    }
    assert wrong == {}


def test_nothing_unpickles():
    """No pickle crosses a boundary: neither the module nor torch's loader of pickles is used."""
    for floor in BELOW:
        for path in (ROOT / floor).rglob("*.py"):
            assert "pickle" not in imported(path), path
            assert "torch.load(" not in path.read_text(), path

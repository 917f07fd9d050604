"""Imports only go down, files stay small, and retired names stay retired."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW: dict[str, set[str]] = {
    "schemas": set(),
    "rft": {"schemas"},
    "producers": {"schemas", "rft"},
    "consumers": {"schemas", "rft"},
    "infra": {"schemas", "rft", "producers", "consumers"},
}
RFT_FLOORS = (
    {"errors"},
    {"event_loop", "model_files", "plugins", "retry", "texts"},
    {"config", "workers"},
    {"config_faults"},
    {"algorithms", "config_sources", "config_toml", "evaluation", "hub", "log", "lora", "rewards"},
    {"telemetry"},
    {"loop_watchdog"},
    {"stream", "weights"},
    {"environments", "policy"},
    {"data", "workflows"},
    {"tasks"},
    {"training"},
)
"""The rooms of `rft`, lowest first. A room imports only from rooms of lower floors."""
MOST_LINES = 360


def files(*floors: str) -> list[Path]:
    return sorted(path for floor in floors or BELOW for path in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names that a file imports, wherever in the file, as tuples of their parts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((*node.module.split("."), alias.name) for alias in node.names)


@pytest.mark.parametrize("floor", BELOW)
def test_a_floor_imports_only_from_floors_below(floor: str) -> None:
    assert files(floor)
    wrong = {
        str(path.relative_to(ROOT)): sorted(outside)
        for path in files(floor)
        if (outside := ({names[0] for names in imported(path)} & BELOW.keys()) - BELOW[floor] - {floor})
    }
    assert wrong == {}


def test_rooms_of_rft_import_only_from_rooms_below() -> None:
    level = {room: number for number, floor in enumerate(RFT_FLOORS) for room in floor}
    assert level.keys() == {path.stem for path in (ROOT / "rft").iterdir() if path.name[:1] not in "_."} - {"py"}
    wrong = {
        (str(path.relative_to(ROOT)), names[1])
        for path in files("rft")
        if (room := path.relative_to(ROOT / "rft").parts[0].removesuffix(".py")) in level
        for names in imported(path)
        if names[0] == "rft" and names[1] != room and level[names[1]] >= level[room]
    }
    assert wrong == set()


def test_nothing_unpickles() -> None:
    """No pickle crosses a boundary: neither the module nor torch's loader of pickles is used."""
    for path in files():
        assert "pickle" not in {names[0] for names in imported(path)}, path
        assert "torch.load(" not in path.read_text(), path


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines for path in files() if (lines := path.read_text().count("\n")) > MOST_LINES
    }
    assert long == {}


def test_names_of_test_files_are_unique() -> None:
    """Two of one name, in folders without ``__init__.py``, are one module to pytest, which refuses the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(name for name in names if names.count(name) > 1) == []


def test_public_names_are_there() -> None:
    """Each name in an ``__all__`` is bound in its module."""
    for path in files():
        tree = ast.parse(path.read_text())
        bound = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        public: list[str] = []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                bound |= {target.id for target in targets if isinstance(target, ast.Name)}
                if "__all__" in {target.id for target in targets if isinstance(target, ast.Name)} and node.value:
                    public = ast.literal_eval(node.value)
        assert set(public) <= bound, path


def test_docstrings_begin_with_a_subject_and_a_verb() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {docstring[:60]}"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (docstring := ast.get_docstring(node))
        and docstring.startswith("Of ")
    ]
    assert wrong == []


def test_retired_names_occur_only_in_the_changelog() -> None:
    """The first column of the changelog's table "Renamed" lists names that no longer exist."""
    table = (ROOT / "CHANGELOG.md").read_text().split("### Renamed", 1)[1]
    retired = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(retired) > 50
    pattern = re.compile(r"(?<![\w./])(" + "|".join(map(re.escape, retired)) + r")(?!\w)")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if name in ("CHANGELOG.md", "LICENSE") or "fixtures" in path.parts or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match}" for match in set(pattern.findall(text))]
    assert found == []

"""The documentation names only what exists: files, modules, settings, commands."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.main import get_command

from infra.cli import app
from rft.config import Config

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
FOLDERS = "schemas|rft|producers|consumers|infra|tests|examples|benchmarks|tools|docs"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]+)`")
TEST = re.compile(r"`(test_\w+\.py)`")
MODULE = re.compile(r"`((?:schemas|rft|producers|consumers|infra)(?:\.\w+)+)`")
SETTING = re.compile(rf"[`-]((?:{'|'.join(Config.model_fields)})\.[a-z_.]+)\b")
COMMAND = re.compile(r"^(?:\.venv/bin/)?rft ([a-z]+)|`rft ([a-z]+)", re.MULTILINE)
WIRE_NAME = re.compile(r"\.v\d+$|^rft\.(schema|error|dlq)\b")
"""Topics and headers look like modules."""
FILE_SUFFIXES = (".toml", ".json", ".jsonl", ".html", ".py")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@every_document
def test_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert [path for path in PATH.findall(text) if not (ROOT / path).exists()] == []
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert [name for name in TEST.findall(text) if name not in tests] == []


@every_document
def test_modules_and_their_members_exist(document: Path) -> None:
    names = MODULE.findall(document.read_text(encoding="utf-8"))
    assert [name for name in names if not WIRE_NAME.search(name) and not resolves(name)] == []


@every_document
def test_settings_exist(document: Path) -> None:
    names = SETTING.findall(document.read_text(encoding="utf-8"))
    wrong = [name for name in names if not name.endswith(FILE_SUFFIXES) and not is_setting(name.split("."))]
    assert wrong == []


@every_document
def test_commands_exist(document: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    used = {first or second for first, second in COMMAND.findall(document.read_text(encoding="utf-8"))}
    assert used - set(commands) == set()


def test_the_map_of_rooms_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {
        room.parent.name
        for floor in ("infra", "producers", "consumers", "rft")
        for room in ROOT.glob(f"{floor}/*/__init__.py")
    }
    assert {room for room in rooms if f"`{room}/`" not in text} == set()


def resolves(name: str) -> bool:
    """Return whether a dotted name is a module, or a member of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def is_setting(path: list[str]) -> bool:
    """Return whether a path of names leads to a field of the configuration."""
    if path[0] in ("stages", "trainers"):  # they have names, and then sections like the whole tree
        path = path[2:]
    if path[:2] == ["eval", "sets"]:
        path = ["eval", *path[3:]]
    model: Any = Config
    for name in path:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or name not in model.model_fields:
            return False
        annotation = model.model_fields[name].annotation
        model = next((kind for kind in (annotation, *get_args(annotation)) if kind is not type(None)), None)
    return True

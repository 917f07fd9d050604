"""Checks what no formatter of the project sees: line ends, white space, conflict markers, sizes, TOML and YAML.

    python tools/check_files.py            check all files that Git tracks
    python tools/check_files.py FILE …     check these

Prints one line a fault and exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

MAX_BYTES = 1_000_000
"""Larger files are models, logs or data: they belong into `runs/`, which Git ignores."""
LITERAL = {".avro", ".avsc", ".bin", ".json", ".npz", ".png", ".safetensors", ".txt"}
"""File types in which white space at the end may be content, or which are not text."""
CONFLICT = ("<<<<<<< ", ">>>>>>> ")


def faults(file: Path) -> Iterator[str]:
    """Yield what is wrong with one file."""
    if file.stat().st_size > MAX_BYTES:
        yield f"larger than {MAX_BYTES:,} bytes"
    if file.suffix in LITERAL:
        return
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        yield "not UTF-8"
        return
    if "\r" in text:
        yield "carriage return"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield "does not end with exactly one newline"
    for number, line in enumerate(text.split("\n"), start=1):
        if line != line.rstrip():
            yield f"line {number}: white space at the end"
        if line.startswith(CONFLICT):
            yield f"line {number}: conflict marker"
    try:
        if file.suffix == ".toml":
            tomllib.loads(text)
        elif file.suffix in {".yaml", ".yml"}:
            yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        yield str(error)


def tracked() -> list[Path]:
    """Return the files that Git tracks and that exist; none outside a Git repository, as in an unpacked archive."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := Path(name)).is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    files: list[Path] = parser.parse_args().files or tracked()
    found = [f"{file}: {fault}" for file in files if file.is_file() for fault in faults(file)]
    print("\n".join(found) or f"{len(files)} files are in order")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

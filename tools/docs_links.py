"""Checks the links of Markdown files, and adapts those of docs/ to the documentation site.

As a hook of MkDocs (`mkdocs.yml` names it) it replaces each link from `docs/` to a file elsewhere in the repository by
that file's path, because the site does not contain the file. A link to a file that does not exist fails the build.

    python tools/docs_links.py README.md examples/*/README.md

checks the links of files that are not part of the site, anchors included, and exits with 1 if one leads nowhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^\s*(```|~~~)")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
TARGET = re.compile(r"\]\((?P<target>[^)\s]+)\)|(?:src|srcset|href)=\"(?P<attribute>[^\"]+)\"")
HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*$")
EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:")
log = logging.getLogger("mkdocs.hooks.docs_links")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace links that leave `docs/` in one page. MkDocs calls this by its name."""
    docs = Path(config["docs_dir"])
    source = Path(page.file.abs_src_path)

    def replace(match: re.Match[str]) -> str:
        path = (source.parent / match["target"].partition("#")[0]).resolve()
        if EXTERNAL.match(match["target"]) or path.is_relative_to(docs):
            return match[0]
        if not path.is_relative_to(ROOT) or not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, match["target"])
        return as_path(match["text"], os.path.relpath(path, ROOT))

    return outside_code(markdown, lambda line: LINK.sub(replace, line))


def as_path(text: str, path: str) -> str:
    """Return the text of a link followed by the path that it leads to, or the path alone if the text names it."""
    return f"`{path}`" if path.endswith(text.strip("`").rstrip("/")) else f"{text} (`{path}`)"


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Apply ``change`` to each line that is not within a fenced block of code."""
    lines, fenced = [], False
    for line in markdown.split("\n"):
        if FENCE.match(line):
            fenced = not fenced
        lines.append(line if fenced else change(line))
    return "\n".join(lines)


def broken_links(file: Path) -> Iterator[str]:
    """Yield each relative link of a Markdown file that leads to no file, or to no heading in it."""
    targets: list[str] = []

    def collect(line: str) -> str:
        targets.extend(match["target"] or match["attribute"] for match in TARGET.finditer(line))
        return line

    outside_code(file.read_text(encoding="utf-8"), collect)
    for target in targets:
        if EXTERNAL.match(target):
            continue
        path, _, anchor = target.partition("#")
        found = (file.parent / path).resolve() if path else file.resolve()
        if not found.exists() or (anchor and anchor not in anchors(found)):
            yield target


def anchors(file: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings."""
    titles: list[str] = []

    def collect(line: str) -> str:
        if match := HEADING.match(line):
            titles.append(match["title"])
        return line

    outside_code(file.read_text(encoding="utf-8"), collect)
    return {slugify(re.sub(r"[`*]", "", title), "-") for title in titles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    files: list[Path] = parser.parse_args().files
    broken = [f"{file}: {target} leads nowhere" for file in files for target in broken_links(file)]
    print("\n".join(broken) or f"The links of {len(files)} files are in order")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()

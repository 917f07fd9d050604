"""``rft init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new project's folder.", show_default=False)],
    template: Annotated[
        str, typer.Option(metavar="NAME", help="math, chat, agent, sft-then-grpo or dpo: what to begin with.")
    ] = "math",
) -> None:
    """Write a project that runs at once and that you change: configuration, reward, test and README.

    Nothing is overwritten. The project's small model is made on this machine, without a download; its comments say
    where to put a real one.

    Example: rft init my_project --template math
    """
    from infra.init.project import write_project

    files = write_project(folder, template)
    print(f"{template}: {', '.join(path.name for path in files)} are in {folder}. Next:")
    print(f"  cd {folder}\n  python make_data.py\n  python -m pytest\n  rft run run.toml")

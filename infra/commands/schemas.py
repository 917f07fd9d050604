"""``rft schemas``: checks whether schemas may change as they do, and registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.commands.common import ANY_SETTING, ConfigPath, load

schemas = typer.Typer(
    help="Check schemas against all their earlier versions; register them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@schemas.command("check")
def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="An .avsc file; by default all current schemas.")
    ] = None,
) -> None:
    """Check that a schema is compatible with all versions of its record (FULL_TRANSITIVE).

    Exit code 1 if it is not. Each problem is named with its JSON path, the rule that it breaks and what to do.

    Example: rft schemas check schemas/avsc/Experience.avsc
    """
    from schemas.history import check_current, check_file, explain, unfrozen

    problems = {str(file): check_file(file)} if file is not None else check_current()
    for name, found in problems.items():
        for line in explain(found):
            print(line)
        if not found:
            print(f"{name}: ok")
    if file is None:
        for record in unfrozen():
            print(
                f"{record}.avsc: differs from its newest version in schemas/avsc/history (`rft schemas freeze` adds it)"
            )
    raise typer.Exit(1 if any(problems.values()) else 0)


@schemas.command("freeze")
def freeze() -> None:
    """Add the current schemas that have changed to schemas/avsc/history, as new versions. For a source checkout.

    Refuses a schema that is not compatible with the others. Existing versions are never changed or deleted.

    Example: rft schemas freeze
    """
    from schemas.history import freeze as add_versions

    written = add_versions()
    for path in written:
        print(path)
    if not written:
        print("nothing has changed")


@schemas.command("register", context_settings=ANY_SETTING)
def register(context: typer.Context, config: ConfigPath) -> None:
    """Register our schemas with the configured registry, for registry.auto_register = false.

    Example: rft schemas register run.toml --registry.url https://registry:8081
    """
    loaded = load(config, context)
    from rft.errors import ConfigError
    from rft.log.registry import subject_of, writer_ids

    if loaded.registry.url is None:
        raise ConfigError("registry.url is not set: there is no registry to register with")
    registering = loaded.registry.model_copy(update={"auto_register": True})
    for entity, number in writer_ids(loaded.model_copy(update={"registry": registering})).items():
        print(f"{subject_of(loaded, entity)}: schema id {number}")

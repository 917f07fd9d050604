"""The ``rft`` command. Heavy modules are imported by the sub-command that needs them, when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.main import get_command

from infra.commands.acls import acls
from infra.commands.archiver import archiver
from infra.commands.audit import audit
from infra.commands.common import ConfigPath, WholeConfigPath, before_start, load, load_whole
from infra.commands.dlq import dlq
from infra.commands.evaluate import evaluate
from infra.commands.importer import import_files, importer
from infra.commands.init import init
from infra.commands.lineage import lineage
from infra.commands.replay import replay
from infra.commands.schemas import schemas
from infra.commands.topics import topics
from infra.commands.track import track, tracker

if TYPE_CHECKING:
    from infra.preflight.contract import Role

_ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}
_OVERRIDES = "Override any setting with --section.field value after CONFIG."

app = typer.Typer(
    name="rft",
    help=(
        "Reinforcement fine-tuning of language models as a stream of events on Kafka.\n\n"
        "Start with rft init FOLDER, then rft run CONFIG. " + _OVERRIDES + "\n\n"
        "Exit codes: 0 done, 1 failed, 2 bad configuration, 130 interrupted.\n\n"
        "Example: rft run examples/quickstart/quickstart.toml --trainer.steps 100"
    ),
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command. An :class:`RftError` is printed as one message without a traceback."""
    # The user's task sources and reward functions are found in the working directory, after all libraries.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        from infra.library_noise import log_for_a_command
        from rft.errors import RftError
        from rft.log.client_names import name_clients
    except ImportError as error:
        _say_what_hides_us(error)
        raise

    log_for_a_command()
    if len(sys.argv) > 1:
        name_clients(sys.argv[1])
    try:
        command()()
    except RftError as error:
        print(f"rft: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _say_what_hides_us(error: ImportError) -> None:
    """End with exit code 2 if another package has the name of one of ours and is imported in its place."""
    ours = Path(__file__).parents[1]
    for name in ("consumers", "infra", "producers", "rft", "schemas"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and not Path(file).is_relative_to(ours):
            print(
                f"rft: {name!r} is a package of Stream-RFT, but Python imports {file} in its place ({error}). Rename "
                "that package, or take its folder out of PYTHONPATH.",
                file=sys.stderr,
            )
            raise SystemExit(2) from None


def command() -> Any:
    """Return the whole command. Its help texts are printed as written: rich would take ``[[stages]]`` for markup."""
    built = get_command(app)
    _escape_help(built)
    return built


def _escape_help(built: Any) -> None:
    built.help = escape(built.help or "")
    for parameter in built.params:
        parameter.help = escape(getattr(parameter, "help", None) or "")
    for sub_command in getattr(built, "commands", {}).values():
        _escape_help(sub_command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"stream-rft {version('stream-rft')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    return None


@app.command(context_settings=_ANY_SETTING)
def run(
    context: typer.Context,
    config: WholeConfigPath,
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines instead of the live screen (as without a TTY).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration as TOML, secrets masked, and exit.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over: an earlier run of this name is moved aside, not resumed.")
    ] = False,
) -> None:
    """Run everything on this machine: broker, roles, live view, report.

    The broker and all roles are started and supervised; a role that dies is restarted. Ctrl-C stops cleanly,
    a second one kills. With a durable broker (kafka, external) the same command resumes an unfinished run. In a run
    with stages ([[stages]]), finished stages are not repeated, with any broker.

    Example: rft run examples/quickstart/quickstart.toml --trainer.steps 100 --plain
    """
    loaded = load_whole(config, context)
    if dry_run:
        from rft.config_toml import masked, to_toml

        print(to_toml(masked(loaded)))
        return
    if loaded.stages:
        from infra.launcher.staging import launch_stages

        raise typer.Exit(launch_stages(loaded, plain=plain, fresh=fresh))
    from infra.launcher.launch import launch

    raise typer.Exit(launch(loaded, plain=plain, fresh=fresh))


@app.command(context_settings=_ANY_SETTING)
def conductor(context: typer.Context, config: ConfigPath) -> None:
    """Issue tasks at the trainer's pace, and tasks of evaluations. One for each run.

    Example: rft conductor run.toml --broker.bootstrap_servers kafka:9092
    """
    _role("conductor", config, context)


@app.command(context_settings=_ANY_SETTING)
def explorer(context: typer.Context, config: ConfigPath) -> None:
    """Roll tasks out with the newest weights and publish the experiences. At most one for each partition.

    Example: rft explorer run.toml --broker.bootstrap_servers kafka:9092 --policy.device cuda
    """
    _role("explorer", config, context)


@app.command(context_settings=_ANY_SETTING)
def gateway(context: typer.Context, config: ConfigPath) -> None:
    """Serve agents that come by themselves, by OpenAI's and Anthropic's protocols. Needs gateway.serve = true.

    Example: rft gateway run.toml --broker.bootstrap_servers kafka:9092 --gateway.listen 127.0.0.1:8000
    """
    _role("gateway", config, context)


@app.command(context_settings=_ANY_SETTING)
def processor(context: typer.Context, config: ConfigPath) -> None:
    """Clean, score and group experiences (a Faust worker). At most one for each partition.

    Example: rft processor run.toml --broker.bootstrap_servers kafka:9092
    """
    _role("processor", config, context)


@app.command(context_settings=_ANY_SETTING)
def rewarder(
    context: typer.Context,
    config: ConfigPath,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of [rewarders.<name>]. Needed if there are several.")
    ] = None,
) -> None:
    """Reward experiences by a judge, a sandbox, a model or your own functions. At most one for each partition.

    Example: rft rewarder run.toml --name unit_tests --broker.bootstrap_servers kafka:9092
    """
    loaded = load(config, context).of_rewarder(name)
    before_start(loaded, "rewarder")
    from infra.roles import run_role

    raise typer.Exit(run_role("rewarder", loaded))


@app.command(context_settings=_ANY_SETTING)
def trainer(
    context: typer.Context,
    config: ConfigPath,
    identity: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Run this one of [trainers.<key>] instead of the main trainer."),
    ] = None,
) -> None:
    """Learn from ready groups and announce new weights. One for each identity. It resumes from its checkpoint.

    Example: rft trainer run.toml --broker.bootstrap_servers kafka:9092 --trainer.threads 4
    """
    _role("trainer", config, context, identity)


app.command(context_settings=_ANY_SETTING)(acls)
app.command(context_settings=_ANY_SETTING)(archiver)
app.command(context_settings=_ANY_SETTING)(importer)
app.command("import", context_settings=_ANY_SETTING)(import_files)
app.command(context_settings=_ANY_SETTING)(audit)
app.command("eval", context_settings=_ANY_SETTING)(evaluate)
app.command()(init)
app.command(context_settings=_ANY_SETTING)(lineage)
app.command(context_settings=_ANY_SETTING)(replay)
app.command(context_settings=_ANY_SETTING)(topics)
app.command(context_settings=_ANY_SETTING)(track)
app.command(context_settings=_ANY_SETTING)(tracker)
app.add_typer(dlq, name="dlq")
app.add_typer(schemas, name="schemas")


@app.command(context_settings=_ANY_SETTING)
def doctor(context: typer.Context, config: ConfigPath) -> None:
    """Check this machine, the broker, the topics and the model; each line says what to do.

    Exit code 2 if the configuration is wrong, 1 if anything else fails.

    Example: rft doctor run.toml --broker.bootstrap_servers kafka:9092
    """
    loaded = load(config, context)
    from infra.console import show_findings
    from infra.doctor.diagnose import diagnose
    from infra.launcher.folder import with_running_broker

    raise typer.Exit(show_findings(diagnose(with_running_broker(loaded))))


@app.command(context_settings=_ANY_SETTING)
def report(context: typer.Context, config: ConfigPath) -> None:
    """Write report.json and report.html from the log, also while a run goes on.

    Example: rft report examples/quickstart/quickstart.toml
    """
    loaded = load(config, context)
    from consumers.report.build import build_report
    from infra.launcher.folder import last_end
    from infra.launcher.log_access import reachable_log

    end = last_end(loaded.run.path) if loaded.run.path.is_dir() else None
    with reachable_log(loaded, "rft report") as loaded:
        build_report(loaded, end=end)
    print(f"report: {loaded.run.path / 'report.html'}")


def _role(name: Role, path: Path, context: typer.Context, identity: str | None = None) -> None:
    loaded = load(path, context)
    if identity is not None:
        loaded = loaded.of_trainer(identity)
    before_start(loaded, name)
    from infra.roles import run_role

    raise typer.Exit(run_role(name, loaded))


if __name__ == "__main__":
    main()

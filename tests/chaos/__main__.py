"""``make chaos N=200``: injects N faults, prints the results, and exits with 1 if anything was lost or doubled."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from quickstart import make_quickstart_model
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from chaos.harness import run_plan
from chaos.plan import ALL_KINDS, CLUSTER, ENDINGS, LONG_OUTAGES, PER_SCENARIO, Scenario, default_kinds, make_plan
from chaos.table import Outcome, remarks, table
from infra.kafka_node import kafka_home
from rft.config import BrokerConfig
from rft.errors import RftError


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _arguments()
    kinds = [kind for kind in arguments.only or default_kinds(arguments.nodes) if kind not in arguments.without]
    plan = make_plan(arguments.seed, arguments.faults, tuple(kinds), arguments.per_deployment)
    kafka_home(BrokerConfig(kind="kafka"))  # fails before the model is made
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="rft-chaos-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        console.print(
            f"{arguments.faults} faults in {len(plan)} deployments, nodes: {arguments.nodes}, "
            f"seed {arguments.seed}; {folder}"
        )
        outcome = _run(arguments, plan, folder, make_quickstart_model(folder / "model"), console)
    outcome.left_out = tuple(arguments.without)
    for line in remarks(outcome):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if arguments.json:
        print(json.dumps(outcome.to_json(), indent=1))
    else:
        Console().print(table(outcome))
    return 0 if outcome.ok else 1


def _run(
    arguments: argparse.Namespace, plan: Sequence[Scenario], folder: Path, model: Path, console: Console
) -> Outcome:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=arguments.faults)

        def report(line: str) -> None:
            stamp = time.strftime("%H:%M:%S")
            progress.console.print(f"{stamp} {line}", markup=False, highlight=False, soft_wrap=True)
            progress.update(task, description=line.partition("\n")[0][:60], advance=line.startswith("fault "))

        return run_plan(
            plan, arguments.seed, folder, model, report, _enough(arguments.minutes, report), arguments.nodes
        )


def _enough(minutes: float, report: Callable[[str], None]) -> Callable[[], bool]:
    """Return a function that is True when the time is up, or after Ctrl-C. A second Ctrl-C aborts."""
    deadline = time.monotonic() + minutes * 60
    signals: list[int] = []

    def interrupted(number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signals.append(number)
        report("no further faults: this deployment runs to its end and is audited; Ctrl-C again aborts")

    signal.signal(signal.SIGINT, interrupted)
    return lambda: bool(signals) or time.monotonic() > deadline


def _arguments() -> argparse.Namespace:
    kinds = "\n".join(f"  {kind}{_remark(kind)}" for kind in ALL_KINDS)
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description=(
            "Injects faults into pipelines on Apache Kafka (KAFKA_HOME), and audits their logs. After each fault all\n"
            "that it hurt must work again, and the consumer groups must have committed all that they could read.\n"
            "Exits with 1 if anything is lost, trained twice, unbalanced, or stands still."
        ),
        epilog=(
            f"kinds of faults:\n{kinds}\n\n"
            "Examples:\n"
            "  make chaos N=50\n"
            "  make chaos NODES=3 N=100\n"
            "  make chaos NODES=3 N=4 CHAOS_ARGS=\"--only 'two nodes down 150 s' --only 'kill -9 controller'\""
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--faults", type=int, default=28, help="how many (default 28)")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn (default 0)")
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        choices=(1, 3),
        help="brokers of the cluster (default 1). With 3, every topic has 3 replicas of which 2 must be in sync, and "
        "faults of clusters and neighbors are drawn too",
    )
    parser.add_argument("--per-deployment", type=int, default=PER_SCENARIO, help=f"default {PER_SCENARIO}")
    parser.add_argument(
        "--only", action="append", choices=ALL_KINDS, metavar="KIND", help="these kinds only (may be given again)"
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=ALL_KINDS,
        metavar="KIND",
        help="leave this kind out (may be given again); the results say so",
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="inject no faults after this many minutes")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    if arguments.nodes < 3 and (wrong := [kind for kind in arguments.only or () if kind in CLUSTER]):
        parser.error(f"{', '.join(wrong)}: needs --nodes 3 (make chaos NODES=3)")
    return arguments


def _remark(kind: str) -> str:
    if kind in LONG_OUTAGES:
        return " (three nodes; only if named by --only)"
    if kind in CLUSTER:
        return " (three nodes)"
    if kind in ENDINGS:
        return " (default with three nodes; the run must end, by the error that names the topic)"
    return "" if kind in default_kinds(1) else " (default with three nodes)"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RftError as error:
        sys.exit(f"{type(error).__name__}: {error}")

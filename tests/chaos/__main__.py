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
from chaos.plan import KINDS, PER_SCENARIO, Scenario, make_plan
from chaos.table import Outcome, remarks, table
from infra.kafka_node import kafka_home
from rft.config import BrokerConfig
from rft.errors import RftError


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _arguments()
    plan = make_plan(arguments.seed, arguments.faults, tuple(arguments.only or KINDS), arguments.per_deployment)
    kafka_home(BrokerConfig(kind="kafka"))  # fails before the model is made
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="rft-chaos-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        console.print(f"{arguments.faults} faults in {len(plan)} deployments, seed {arguments.seed}; {folder}")
        outcome = _run(arguments, plan, folder, make_quickstart_model(folder / "model"), console)
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

        return run_plan(plan, arguments.seed, folder, model, report, _enough(arguments.minutes, report))


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
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Injects faults into pipelines on Apache Kafka (KAFKA_HOME) and audits their logs.",
        epilog="Example: make chaos N=50, or python -m chaos --faults 20 --only 'kill -9 trainer' --only 'full disk'",
    )
    parser.add_argument("--faults", type=int, default=28, help="how many (default 28: each kind twice)")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn (default 0)")
    parser.add_argument("--per-deployment", type=int, default=PER_SCENARIO, help=f"default {PER_SCENARIO}")
    parser.add_argument("--only", action="append", choices=KINDS, help="these kinds only (may be given again)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="inject no faults after this many minutes")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RftError as error:
        sys.exit(f"{type(error).__name__}: {error}")

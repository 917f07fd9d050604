"""``rft topics``: shows the topics of a log, or prints definitions for those who create them."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.commands.common import ClusterName, ConfigPath, EmitFormat, load


def topics(
    context: typer.Context,
    config: ConfigPath,
    emit: Annotated[
        EmitFormat | None,
        typer.Option("--emit", help="Print definitions of the topics with our settings, and ask no broker."),
    ] = None,
    cluster: ClusterName = "my-cluster",
) -> None:
    """List the topics with their sizes and the lag of their readers.

    The broker that a run in progress has started is found by itself. After a run with a local Kafka node, the node is
    started meanwhile.

    With --emit, print the definitions of all topics for a cluster whose topics are created by others
    (log.manage_topics = false): commands of kafka-topics.sh, KafkaTopic resources of Strimzi, or resources of
    Terraform's provider Mongey/kafka.

    Example: rft topics run.toml --emit strimzi --cluster events | kubectl apply -f -
    """
    loaded = load(config, context)
    if emit is not None:
        from infra.definitions.base import topic_definitions
        from infra.definitions.formats import make_target, open_format

        print(open_format(emit.value).topics(topic_definitions(loaded), make_target(loaded, cluster)), end="")
        return
    from infra.console import show_topics
    from infra.launcher.log_access import reachable_log
    from rft.log.topic_table import topic_table

    with reachable_log(loaded, "rft topics") as loaded:
        show_topics(topic_table(loaded))

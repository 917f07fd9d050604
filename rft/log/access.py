"""Says what each role does with the topics. From this follow its ACLs, and the topics that it checks at its start.

Reading and writing each imply that a client may describe the topic. An idempotent producer needs no more than the right
to write; no role uses transactions.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft.config import Config
from rft.log.topics import ENTITIES, ensure_topics

EXPLORERS, PROCESSORS = "explorers", "processors"
"""Consumer groups, ``<namespace>.<name>``."""


def rewarder_group(name: str, revision: int) -> str:
    """Return the consumer group of a rewarder's processes. A new revision reads all experiences again."""
    return f"rewarder-{name}" + (f"-{revision}" if revision else "")


@dataclass(frozen=True, slots=True)
class Access:
    """What a role does. Topics are named by entity, consumer groups by the processes that share them."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    """Consumer groups that it is a member of, and commits offsets for."""
    watches: tuple[str, ...] = ()
    """Consumer groups whose committed offsets it reads."""
    sees_sizes: bool = False
    """Asks how large the topics are on the brokers' disks."""
    creates: bool = False
    """Creates topics, unless ``log.manage_topics`` is false."""

    @property
    def entities(self) -> tuple[str, ...]:
        """All topics that it uses, in the design's order."""
        return tuple(entity for entity in ENTITIES if entity in (*self.reads, *self.writes))


REWARDER, READER, OPERATOR = "rewarder", "reader", "operator"
"""The first also stands for programs of others that send rewards: if the configuration has no ``[rewarders]``, it only
writes. The other two are no roles: commands that only look (`audit`, `lineage`, `report`, `topics`, `replay`,
`dlq list`, `doctor`); `rft run` and commands that write (`dlq retry`)."""

ALL = tuple(ENTITIES)


def access_by_role(config: Config) -> dict[str, Access]:
    """Return what each role does under this configuration."""
    fixed = config.run.mode in ("explore", "eval")
    external = ("rewards", "waiting") if config.processor.external.required else ()
    held = ("tasks",) if config.holds_steps else ()
    uncounted = config.processor.external.frees_slots
    imported = tuple({"tasks" if source.kind == "tasks" else "experiences" for source in config.imports})
    imported = imported or ("tasks", "experiences")
    rewarders = tuple(rewarder_group(name, one.revision) for name, one in config.rewarders.items())
    groups = (EXPLORERS, PROCESSORS, *rewarders)
    return {
        "conductor": Access(
            reads=("tasks", "weights", "steps", "ready", "dlq", *(("waiting",) if uncounted else ())),
            # If nothing is trained, it announces the weights itself.
            writes=("tasks", "dlq", *(("weights",) if fixed else ())),
        ),
        "explorer": Access(
            reads=("tasks", "weights"),
            writes=("experiences", "members", "dlq", *(("turns",) if config.gateway.log_turns == "all" else ())),
            joins=(EXPLORERS,),
        ),
        "gateway": Access(
            reads=("members", "turns", "sessions", "dlq"),
            writes=("experiences", "rewards", "turns", "sessions", "dlq"),
        ),
        "processor": Access(
            reads=("experiences", *external),
            writes=("ready", "dlq", *(("waiting",) if external else ())),
            joins=(PROCESSORS,),
        ),
        "trainer": Access(
            reads=("ready", "weights", "members", "steps", "dlq", *held), writes=("weights", "steps", "dlq")
        ),
        "archiver": Access(reads=config.archive.entities),
        "importer": Access(reads=imported, writes=imported),
        "tracker": Access(reads=("weights", "steps", "ready")),
        REWARDER: Access(reads=("experiences", "rewards", "dlq"), writes=("rewards", "dlq"), joins=rewarders)
        if rewarders
        else Access(writes=("rewards",)),
        READER: Access(reads=ALL, watches=groups, sees_sizes=True),
        # `rft run` passes its login on to all of its roles.
        OPERATOR: Access(reads=ALL, writes=ALL, joins=groups, sees_sizes=True, creates=True),
    }


def prepare_topics(config: Config, role: str) -> list[str]:
    """Do what :func:`rft.log.topics.ensure_topics` does for a role.

    If ``log.manage_topics`` is false, only the topics that the role uses are checked: it may not see the others.
    """
    if config.log.manage_topics:
        return ensure_topics(config)
    return ensure_topics(config, access_by_role(config)[role].entities)

"""Opens the weight transport that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event as StopEvent

from rft.config import Config
from rft.log.writer import EventWriter
from rft.weights.collective_transport import CollectiveTransport
from rft.weights.distributor import Distributor
from rft.weights.folder_transport import FolderTransport
from rft.weights.transport import COLLECTIVE, WeightTransport
from rft.weights.version_folders import VersionFolders
from rft.weights.wire_dtype import companions_in
from schemas.events import WeightVersion


def open_transport(
    config: Config,
    writer: EventWriter,
    companions: Mapping[str, bytes],
    newest: WeightVersion | None,
    *,
    client_id: str,
    stop: StopEvent,
) -> WeightTransport:
    """Open ``weights.transport`` for a trainer.

    Args:
        companions: the model's configuration and tokenizer files, by name.
        newest: the newest version on the log.
        client_id: the trainer's name in the broker's logs.
        stop: ends waits for space on a full disk.

    Raises:
        BrokerError: Members cannot be read from the log.
        WeightsError: The rendezvous cannot listen on ``weights.bind``.
    """
    folders = VersionFolders(config, companions_in(config.weights.wire_dtype, companions), stop)
    if config.weights.transport != COLLECTIVE:
        return FolderTransport(folders, writer)
    distributor = Distributor(config, writer, folders, newest, client_id=client_id)
    return CollectiveTransport(folders, distributor, config.weights.checkpoint_every)

"""Opens the log to read again: the live one or an archive of it."""

from __future__ import annotations

from rft.config import Config
from rft.errors import BrokerError
from rft.log.archive.view import ArchiveView
from rft.log.live_view import LiveView
from rft.log.views import LogView


def open_log(config: Config, archive: str | None = None) -> LogView:
    """Return the archive at that path or URL, or else the live log.

    An embedded broker's log ends with its run, so if the configuration names no server of it, the run's archive is
    the log.

    Raises:
        BrokerError: The broker cannot be reached.
        ArchiveError: There is no archive.
    """
    if archive is not None:
        return ArchiveView(config, archive)
    if config.broker.kind != "embedded":
        return LiveView(config)
    if config.broker.bootstrap_servers is None:
        return ArchiveView(config, config.archive_url)
    try:
        return LiveView(config)
    except BrokerError as error:
        raise BrokerError(
            f"{error}. An embedded broker's log ends with its run; to read the run's archive: "
            f"--archive {config.archive_url}"
        ) from error

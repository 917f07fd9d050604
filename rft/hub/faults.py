"""Says in our words what the hub's client reports, and what to do about it. No message holds a token."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rft.errors import HubError, first_line
from rft.hub.repository import MAIN, Repository

_LOGIN = "set the variable HF_TOKEN to a token of your account, or run `hf auth login`"


def is_unreachable(error: Exception) -> bool:
    """Return whether ``error`` means that the hub was not, or must not be, asked."""
    return isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError | httpx.TransportError)


def explain(
    error: Exception,
    repository: Repository,
    close_names: Callable[[], Sequence[str]],
    *,
    files: Sequence[str] = (),
    needed: int = 0,
    cache: Path | None = None,
) -> HubError:
    """Return the error for people. ``close_names`` is called only if there is no such repository.

    ``files`` were to be downloaded, ``needed`` is their size in bytes, and ``cache`` is where to.
    """
    setting = "policy.model" if repository.kind == "model" else "the source"
    page = f"{constants.ENDPOINT}/{'datasets/' if repository.kind == 'dataset' else ''}{repository.name}"
    if isinstance(error, GatedRepoError):
        return HubError(f"{repository.name} is gated: ask for access on {page}, then {_LOGIN}.")
    if isinstance(error, RepositoryNotFoundError):
        names = close_names()
        close = f" Names like it: {', '.join(names)}." if names else ""
        folder = f"there is no folder {repository.name}, and " if repository.kind == "model" else ""
        return HubError(
            f"{folder}{constants.ENDPOINT} has no {repository.kind} {repository.name} that you may read.{close} "
            f"Correct {setting}; if it is private, {_LOGIN}."
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{repository.name} has no revision '{repository.revision}'. See {page}/tree/{MAIN}")
    if isinstance(error, RemoteEntryNotFoundError):
        return HubError(f"{repository}: {first_line(error)}")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, repository, page)
    if is_unreachable(error):
        return must_be_downloaded(repository, files, error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError(
            f"the disk of {cache} is full: {repository} needs {needed / 1e9:.1f} GB. Free some space or set HF_HOME to "
            "a folder on another disk."
        )
    return HubError(f"{repository} cannot be downloaded: {type(error).__name__}: {first_line(error)}")


def must_be_downloaded(repository: Repository, files: Sequence[str], error: Exception | None = None) -> HubError:
    """Return the error for a hub that cannot be asked and a cache that does not hold what is needed."""
    if error is None or isinstance(error, OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    else:
        why = f"{constants.ENDPOINT} cannot be reached ({first_line(error)})"
    folder = f"there is no folder {repository.name}, and " if repository.kind == "model" else ""
    options = " --repo-type dataset" if repository.kind == "dataset" else ""
    options += f" --revision {repository.revision}" if repository.revision != MAIN else ""
    what = f"the {repository.kind} {repository.name}" if not files else f"all files of {repository}"
    return HubError(
        f"{folder}{why}, and the cache in {constants.HF_HUB_CACHE} does not hold {what}. Where there is a network, run "
        f"`hf download {repository.name}{options}`, and copy that folder here or set HF_HOME to it; or name a folder."
    )


def _explain_status(error: HfHubHTTPError, repository: Repository, page: str) -> HubError:
    status = error.response.status_code
    if status in (401, 403):
        return HubError(f"the hub refuses {repository.name} (HTTP {status}): {_LOGIN}; see {page}")
    if status == 429:
        return HubError(
            f"the hub refuses {repository.name} because there were too many requests (HTTP 429). Wait some minutes; "
            f"{_LOGIN}, which allows more requests."
        )
    return HubError(f"the hub answers HTTP {status} for {repository}: {first_line(error)}")

"""Looks repositories up on the Hugging Face hub and downloads their files into its usual cache.

``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and ``HF_TOKEN`` mean what they mean everywhere. ``huggingface_hub``
reads them when it is imported.
"""

from __future__ import annotations

import io
import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi, constants, hf_hub_download, metadata_load, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from tqdm import tqdm

from rft.errors import HubError
from rft.hub.faults import explain, is_unreachable, must_be_downloaded
from rft.hub.repository import Repository
from rft.retry import Backoff, Deadline, retry

TIMEOUT_S = 20.0
"""Longest wait for the answer to one request."""
BACKOFF = Backoff(1.0, 2.0, 10.0)
BUSY_S = 30.0
"""How long a hub that is busy (HTTP 429, 5xx) is asked again."""
BROKEN_OFF_S = 120.0
"""How long a download that breaks off is resumed without one that succeeds."""
_BUSY = (429, 500, 502, 503, 504)
README = "README.md"
_SMALL = ("config.json", README, ".gitattributes")
"""Files that are never large. Nearly every repository has one of them."""
ReportProgress = Callable[[int, int], None]
"""Is called with (bytes done, bytes in total)."""

log = logging.getLogger("rft")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at one commit."""

    repository: Repository
    """Its revision is the commit."""
    sizes: Mapping[str, int]
    """Bytes of each file, by path."""
    configs: Sequence[Mapping[str, Any]]
    """``configs`` of a dataset's card."""
    cached_only: bool = False
    """The hub was not asked: these are the files in the cache, and there may be more."""


@lru_cache(maxsize=64)
def look_up(repository: Repository) -> Listing:
    """Ask the hub what ``repository`` holds. If it cannot be reached, return what the cache holds.

    Raises HubError, which says what to do.
    """
    api = HfApi()

    def ask() -> Any:
        return api.repo_info(
            repository.name,
            repo_type=repository.kind,
            revision=repository.revision,
            timeout=TIMEOUT_S,
            files_metadata=True,
        )

    try:
        info = retry(ask, retryable=_is_busy, backoff=BACKOFF, deadline=Deadline(BUSY_S))
        # Downloading a small file by the revision's name notes its commit in the cache, for when the hub is away.
        names = {file.rfilename for file in info.siblings or ()}
        small = next((name for name in _SMALL if name in names), None)
        if not repository.pinned and small is not None:
            hf_hub_download(repository.name, small, repo_type=repository.kind, revision=repository.revision)
    except (OSError, httpx.HTTPError, ValueError) as error:
        if (is_unreachable(error) or _is_busy(error)) and (folder := cached_folder(repository)) is not None:
            log.warning("the hub does not answer, so %s is taken from the cache in %s", repository, folder)
            return _cached_listing(repository, folder)
        raise explain(error, repository, lambda: _close_names(api, repository)) from error
    card = info.card_data.to_dict() if info.card_data else {}
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    return Listing(repository.at(info.sha), sizes, _configs(card))


def missing(listing: Listing, files: Sequence[str]) -> list[str]:
    """Return those of ``files`` that the cache does not hold."""
    at = listing.repository
    return [
        file
        for file in files
        if not isinstance(try_to_load_from_cache(at.name, file, revision=at.revision, repo_type=at.kind), str)
    ]


def download(listing: Listing, files: Sequence[str], report: ReportProgress, stop: threading.Event) -> Path:
    """Download what the cache does not hold of ``files``, and return the folder that they are in.

    A download that breaks off is resumed where it was. Raises HubError; if ``stop`` is set, it ends early so.
    """
    repository = listing.repository
    wanted = missing(listing, files)
    if not wanted and (cached := cached_folder(repository)) is not None:
        return cached
    total = sum(listing.sizes[file] for file in wanted)
    _check_room(repository, total)
    progress = _Progress(report, total, stop)

    def fetch() -> str:
        return snapshot_download(
            repository.name,
            repo_type=repository.kind,
            revision=repository.revision,
            allow_patterns=[escape(file) for file in files],
            tqdm_class=progress.bar_class(),
            etag_timeout=TIMEOUT_S,
        )

    try:
        folder = retry(fetch, retryable=_may_be_resumed, backoff=BACKOFF, deadline=Deadline(BROKEN_OFF_S))
    except (OSError, httpx.HTTPError, ValueError) as error:
        raise explain(error, repository, list, files=files, needed=total, cache=cache_folder()) from error
    if missing(listing, files):
        raise must_be_downloaded(repository, files)
    report(total, total)
    return Path(folder)


def cached_folder(repository: Repository) -> Path | None:
    """Return the folder of ``repository`` in the cache, without asking the hub; None if there is none."""
    try:
        return Path(
            snapshot_download(
                repository.name, repo_type=repository.kind, revision=repository.revision, local_files_only=True
            )
        )
    except (OSError, ValueError):
        return None


def cache_folder() -> Path:
    """Return the folder of the cache."""
    return Path(constants.HF_HUB_CACHE)


def _cached_listing(repository: Repository, folder: Path) -> Listing:
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    card = metadata_load(folder / README) if README in sizes else None
    return Listing(repository.at(folder.name), sizes, _configs(card or {}), cached_only=True)


def _configs(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    configs = card.get("configs")
    return [entry for entry in configs if isinstance(entry, Mapping)] if isinstance(configs, list) else []


def _close_names(api: HfApi, repository: Repository) -> list[str]:
    """Return up to three repositories whose names hold the same words; [] if the hub does not say."""
    words = repository.name.rpartition("/")[2]
    search = api.list_models if repository.kind == "model" else api.list_datasets
    try:
        return [found.id for found in search(search=words, limit=3)]
    except (OSError, httpx.HTTPError, ValueError):
        return []


def _check_room(repository: Repository, needed: int) -> None:
    cache = cache_folder()
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise HubError(
            f"{repository} needs {gigabytes(needed)} in {cache}, where {gigabytes(free)} are free. Free some space or "
            "set HF_HOME to a folder on another disk."
        )


def gigabytes(size: int) -> str:
    """Return a size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _is_busy(error: Exception) -> bool:
    return isinstance(error, HfHubHTTPError) and error.response.status_code in _BUSY


def _may_be_resumed(error: Exception) -> bool:
    """Return whether an error is a connection that broke off, or a file that is shorter than it should be."""
    broken_off = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.ConnectError)
    return broken_off or _is_busy(error) or (isinstance(error, OSError) and "Consistency check failed" in str(error))


class _Progress:
    """Adds up the bytes that ``huggingface_hub`` reports to its progress bars, and ends a download when asked to."""

    def __init__(self, report: ReportProgress, total: int, stop: threading.Event) -> None:
        self._report = report
        self._total = total
        self._stop = stop
        self._lock = threading.Lock()

    def bar_class(self) -> type[tqdm[Any]]:
        """Return a class of progress bars that draw nothing. The one that counts bytes reports here."""
        progress = self

        class Bar(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self._counts_bytes = kwargs.get("unit") == "B"
                self._bytes = 0
                super().__init__(*args, **{**kwargs, "file": io.StringIO()})

            def update(self, n: float | None = 1) -> bool | None:
                if self._counts_bytes:
                    self._bytes += int(n or 0)
                    progress.advance(self._bytes)
                return super().update(n)

        return Bar

    def advance(self, done: int) -> None:
        if self._stop.is_set():
            raise HubError("the download was stopped. It is resumed where it was.")
        with self._lock:
            if done < self._total:
                self._report(done, self._total)

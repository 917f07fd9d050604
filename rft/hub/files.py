"""Brings the files of a model or of a dataset's split into the cache, or says what would be downloaded."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from rft.errors import HubError
from rft.hub import model_selection
from rft.hub.client import README, Listing, ReportProgress, cached_folder, download, gigabytes, look_up, missing
from rft.hub.dataset_selection import choose_files
from rft.hub.faults import must_be_downloaded
from rft.hub.repository import Repository


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a repository that are needed."""

    listing: Listing
    first: tuple[str, ...]
    """Files that are downloaded before ``rest``, so that with ``rest`` all of it is there."""
    rest: tuple[str, ...]

    @property
    def size(self) -> int:
        """The bytes that the cache does not hold yet."""
        return sum(self.listing.sizes[file] for file in missing(self.listing, [*self.first, *self.rest]))

    def __str__(self) -> str:
        size = self.size
        return f"{self.listing.repository}, " + (f"{gigabytes(size)} to download" if size else "in the cache")


def nothing(done: int, total: int) -> None:
    """Report no progress."""


def plan_model(repository: Repository, *, with_weights: bool = True) -> Plan:
    """Return which files of a model are needed. Raises HubError if it is no model that can be loaded."""
    listing = look_up(repository)
    if listing.cached_only:
        folder = cached_folder(listing.repository)
        if folder is None or not model_selection.is_complete(folder, with_weights=with_weights):
            raise must_be_downloaded(repository, list(listing.sizes))
    model_selection.check(listing.sizes, repository.name, with_weights=with_weights)
    weights = model_selection.weights(listing.sizes) if with_weights else []
    return Plan(listing, tuple(model_selection.companions(listing.sizes)), tuple(weights))


def plan_dataset(repository: Repository, config: str | None, split: str | None) -> Plan:
    """Return which files hold a dataset's split. Raises HubError if there is no such split."""
    listing = look_up(repository)
    try:
        files = choose_files(repository.name, listing.sizes, listing.configs, config, split)
    except HubError as error:
        if listing.cached_only:
            raise HubError(f"{must_be_downloaded(repository, list(listing.sizes))} What is there: {error}") from error
        raise
    return Plan(listing, tuple(name for name in (README,) if name in listing.sizes), tuple(files))


def fetch(plan: Plan, report: ReportProgress = nothing, stop: threading.Event | None = None) -> Path:
    """Download what is missing, and return the folder that holds all of ``plan``. Raises HubError."""
    stop = stop or threading.Event()
    for files in (plan.first, plan.rest):
        if files:
            folder = download(plan.listing, files, report, stop)
    return folder


def cached_model(repository: Repository, *, with_weights: bool = True) -> Path | None:
    """Return the folder of a model whose files are all in the cache, without asking the hub; None if some are not."""
    folder = cached_folder(repository)
    return folder if folder and model_selection.is_complete(folder, with_weights=with_weights) else None


def dataset_files(repository: Repository, config: str | None, split: str | None) -> list[Path]:
    """Return the files of a dataset's split in the cache, downloaded if need be. Raises HubError."""
    plan = plan_dataset(repository, config, split)
    folder = fetch(plan)
    return [folder / file for file in plan.rest]

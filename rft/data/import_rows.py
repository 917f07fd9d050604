"""Opens the rows that an import names: of a file, a folder, or a dataset of the Hugging Face hub."""

from __future__ import annotations

from rft.config import ImportConfig
from rft.data.reading import Rows, open_files, open_rows


def open_import(source: ImportConfig) -> Rows:
    """Return the rows of an import. Raises DataError, HubError, and ConfigError for a hub name of another form."""
    from rft.hub.repository import dataset_repository

    field = f"imports.{source.name}.path"
    repository = dataset_repository(str(source.path), source.revision, field)
    if repository is None:
        return open_rows(source.path, source.subset)
    from rft.hub.files import dataset_files  # loads the hub's client

    return open_files(dataset_files(repository, source.config, source.subset))

"""The Faust backend says when it runs with versions that it was not tested with."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from consumers.processors.faust_backend import private


def test_the_installed_versions_are_the_tested_ones(caplog):
    """After an upgrade, run all tests of processors, then change the constants."""
    private.warn_if_untested()
    assert caplog.text == ""
    assert (version("faust-streaming"), version("aiokafka")) == (private.TESTED_FAUST, private.TESTED_AIOKAFKA)


@pytest.mark.parametrize(("library", "tested"), [("faust-streaming", "0.15.3"), ("aiokafka", "0.14.0")])
def test_an_untested_version_is_named_with_the_tested_one(library, tested, monkeypatch, caplog):
    monkeypatch.setattr(private, "version", lambda name: "9.9" if name == library else version(name))
    private.warn_if_untested()
    [record] = caplog.records
    assert f"{library} 9.9 is installed" in record.message
    assert f"tested with {tested} only" in record.message

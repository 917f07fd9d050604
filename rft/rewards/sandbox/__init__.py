"""Runs Python code that nobody trusts, cut off from network, files and processes, within limits."""

from rft.rewards.sandbox.limits import Limits, Outcome
from rft.rewards.sandbox.run import check_sandbox, run_code

__all__ = ["Limits", "Outcome", "check_sandbox", "run_code"]

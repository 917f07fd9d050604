"""Environments that others wrote: the contract, and what an author of an environment imports."""

from rft.environments.base import Environment, Message, Observation, Step

__all__ = ["Environment", "Message", "Observation", "Step"]

"""Engines take gradient steps. Their contract is :mod:`rft.training.engines.base`."""

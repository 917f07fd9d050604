"""Engines take gradient steps; :mod:`rft.training.engines.base` is their contract."""

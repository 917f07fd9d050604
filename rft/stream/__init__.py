"""Decides with plain functions without I/O what becomes of an experience on its way to the trainer.

The order is: validate → deduplicate → clean → score → group → prioritize → publish. :mod:`rft.stream.pipeline` chains
the steps; :mod:`consumers.processors` is the shell that carries out what they decide.
"""

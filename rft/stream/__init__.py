"""What becomes of an experience on its way to the trainer, decided by plain functions without I/O.

Order: validate → deduplicate → clean → score → group → prioritise → publish. :mod:`rft.stream.pipeline` chains
them; the Faust app in :mod:`consumers.processors` is the shell that carries out what they decide.
"""

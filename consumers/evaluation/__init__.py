"""Evaluates models without a log: ``rft eval``, and the accuracy before and after an offline run."""

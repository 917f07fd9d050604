"""Preflight: finds what is wrong with a configuration before anything is started, in about a second and without torch.

``contract.py`` says what a check is, ``checks.py`` lists all of them, and each other file holds the checks of one
subject. ``gate.py`` refuses a start, ``rft doctor`` prints every finding.
"""

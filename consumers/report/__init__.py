"""Reports what a run did, from its log: ``report.json`` for programs, ``report.html`` for people."""

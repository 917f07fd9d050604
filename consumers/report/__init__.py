"""What a run did, told from its log: ``report.json`` for programs, ``report.html`` for people."""

"""Data from files: rows read one by one, and what each becomes on the log."""

"""Data from files: rows are read one by one and become events."""

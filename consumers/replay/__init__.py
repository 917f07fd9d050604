"""Replay: any range of the log again, as a file or as an offline training run, if wanted with other rewards."""

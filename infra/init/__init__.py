"""Projects to begin with: what ``rft init`` writes. ``templates/`` holds one folder for each."""

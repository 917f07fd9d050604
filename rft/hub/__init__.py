"""Repositories of the Hugging Face hub: which files are needed of them, at which commit, and how they are downloaded.

``repository.py`` knows names, ``model_selection.py`` and ``dataset_selection.py`` choose files, ``revisions.py`` keeps
the commit that each name stood for when a run began. Only ``client.py`` uses ``huggingface_hub``, its cache included.
"""

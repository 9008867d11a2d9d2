"""The WebUI and its forks as hosts: the only importer of the host's ``modules``."""

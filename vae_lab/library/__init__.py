"""Whole disks: what VAE is in each file, and which of them are broken.

First every file is identified, for which about a megabyte of it is read; then the weights are checked, the worst
suspects first. What was found of a file is stored at once, so that a scan that was stopped goes on where it ended, and
no list of results is kept in memory.
"""

from vae_lab.library.cluster import DaskEngine
from vae_lab.library.record import UNCHECKED, WORST_FIRST, ScanRecord, scan_file
from vae_lab.library.scan import Engine, Progress, Scan
from vae_lab.library.store import Records

__all__ = [
    "UNCHECKED",
    "WORST_FIRST",
    "DaskEngine",
    "Engine",
    "Progress",
    "Records",
    "Scan",
    "ScanRecord",
    "scan_file",
]

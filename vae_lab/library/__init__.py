"""Whole disks: what VAE is in each file, and which of them are broken.

First every file is listed, for which about a megabyte of it is read; then the weights are checked, the worst suspects
first. The record of a file is stored immediately, so that a scan that was stopped resumes where it left off, and no
list of results is held in memory.
"""

from vae_lab.checkup.findings import UNCHECKED, WORST_FIRST
from vae_lab.library.cache import FileCache, Records
from vae_lab.library.cluster import DaskEngine
from vae_lab.library.folders import Listing
from vae_lab.library.inspect import Memory, inspect_file, scan_file
from vae_lab.library.recommend import Recommendation, recommend
from vae_lab.library.record import Depth, FileRecord
from vae_lab.library.scan import Engine, Progress, Scan

__all__ = [
    "UNCHECKED",
    "WORST_FIRST",
    "DaskEngine",
    "Depth",
    "Engine",
    "FileCache",
    "FileRecord",
    "Listing",
    "Memory",
    "Progress",
    "Recommendation",
    "Records",
    "Scan",
    "inspect_file",
    "recommend",
    "scan_file",
]

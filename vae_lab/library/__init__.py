"""Scans whole disks: identifies the VAE in each file, and finds broken ones.

First every file is listed, which reads about a megabyte of it; then the weights are checked, the worst suspects first.
Each record is stored immediately, so an interrupted scan resumes where it left off, and memory use does not grow with
the number of files.
"""

from vae_lab.checkup.findings import UNCHECKED, WORST_FIRST
from vae_lab.library.cache import FileCache, Records
from vae_lab.library.cluster import DaskEngine
from vae_lab.library.folders import Listing
from vae_lab.library.inspect import CheckupStore, inspect_file, scan_file
from vae_lab.library.recommend import Recommendation, recommend
from vae_lab.library.record import Depth, FileRecord
from vae_lab.library.scan import Engine, Progress, Scan

__all__ = [
    "UNCHECKED",
    "WORST_FIRST",
    "CheckupStore",
    "DaskEngine",
    "Depth",
    "Engine",
    "FileCache",
    "FileRecord",
    "Listing",
    "Progress",
    "Recommendation",
    "Records",
    "Scan",
    "inspect_file",
    "recommend",
    "scan_file",
]

"""Computes the SHA-256 of files: ``VAE hash`` in generation parameters and AutoV2 on Civitai are its first digits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vae_lab.errors import Cancelled, UnreadableFile
from vae_lab.formats import is_url
from vae_lab.library.cache import FileCache
from vae_lab.library.folders import FileKey, file_key
from vae_lab.library.record import file_facts
from vae_lab.progress import Progress
from vae_lab.time_limit import TimeLimit

__all__ = ["hash_files"]


def hash_files(
    files: Iterable[tuple[str, str]],
    cache: FileCache,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    time: Callable[[], TimeLimit] | None = None,
) -> int:
    """Store the SHA-256 of each file that has none yet, smallest files first; returns for how many.

    Files that cannot be read, or not in time, are skipped.

    Args:
        files: (name, path) of each. Hard links of one file, and links to it, are read once.
        cache: stores the hashes.
        progress: called before each file is read.
        cancelled: called every 4 MiB; if it returns True, the file's hash is not stored.
        time: makes the limit for one file.
    """
    known: dict[str, str] = {}  # file -> hash
    unknown: dict[str, list[tuple[str, str, FileKey]]] = {}
    for name, path in files:
        key = None if is_url(path) else file_key(path)
        if key is None:
            continue
        file_id, digest = file_facts(path)["file_id"], cache.sha256(path)
        if digest:
            known[file_id] = digest
        else:
            unknown.setdefault(file_id, []).append((name, path, key))
    left = sorted(
        (file_id for file_id in unknown if file_id not in known), key=lambda file_id: unknown[file_id][0][2][2]
    )
    for done, file_id in enumerate(left):
        name, path, _ = unknown[file_id][0]
        if progress:
            progress(done, len(left), name)
        try:
            known[file_id] = cache.hash(path, _either(cancelled, time().expired) if time else cancelled)
        except UnreadableFile:
            continue
        except Cancelled:
            if cancelled and cancelled():
                break
    hashed = [
        (path, key, known[file_id]) for file_id in unknown.keys() & known.keys() for _, path, key in unknown[file_id]
    ]
    for path, key, digest in hashed:
        cache.put_sha256(path, digest, key)
    return len(hashed)


def _either(cancelled: Callable[[], bool] | None, expired: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: expired() or (cancelled is not None and cancelled())

"""Lists of changes, from which they are put back: JSON files."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from vae_lab.errors import HostError
from vae_lab.host.checkpoint_choices import Change
from vae_lab.host.preferences import metadata_file
from vae_lab.library.folders import WEIGHT_SUFFIXES
from vae_lab.new_file import alone_in, new_file, sync_folder

__all__ = ["ChangeList", "Manifest"]

T = TypeVar("T")

_VERSION = 1
_MAX_BYTES = 2**28


class ChangeList(Generic[T]):
    """Changes that can be undone, in a JSON file that exists as long as there are any. Nothing in it is trusted.

    Args:
        path: the JSON file.
        to_entry: makes plain values of a change.
        from_entry: makes a change of them; raises ValueError, KeyError or TypeError if it is none.
    """

    def __init__(self, path: Path, to_entry: Callable[[T], dict[str, Any]], from_entry: Callable[[Any], T]) -> None:
        self.path = path
        self._to_entry = to_entry
        self._from_entry = from_entry

    def read(self) -> list[T]:
        """All changes, oldest first; empty without a file.

        Raises:
            HostError: it cannot be read, or something in it is no change that VAE Lab makes.
        """
        try:
            if self.path.stat().st_size > _MAX_BYTES:
                raise HostError(f"{self.path} is larger than {_MAX_BYTES >> 20} MB, so it is not read")
            stored = json.loads(self.path.read_text(encoding="utf8"))
            if stored["version"] != _VERSION:
                raise HostError(f"{self.path} was written by another version of VAE Lab")
            return [self._from_entry(entry) for entry in stored["changes"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(f"{self.path} could not be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise HostError(
                f"{self.path} is not a list of changes that VAE Lab has made; move it to another folder"
            ) from error

    @contextmanager
    def alone(self, *, create: bool = False) -> Iterator[None]:
        """From reading the list to writing it: other programs that change it wait, or what they add would be lost.

        Args:
            create: create the folder of the file.

        Raises:
            HostError: another program is not done, or the folder cannot be created.
        """
        folder = self.path.parent
        with ExitStack() as stack:
            try:
                if create:
                    folder.mkdir(parents=True, exist_ok=True)
                if folder.is_dir():
                    stack.enter_context(alone_in(folder))
            except OSError as error:
                raise HostError(f"{self.path} could not be written: {error.strerror or error}") from error
            yield

    def write(self, changes: Sequence[T]) -> None:
        """Replace the file, also on the disk; without changes, remove it.

        Raises:
            HostError: it cannot be written.
        """
        try:
            if not changes:
                self.path.unlink(missing_ok=True)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stored = {"version": _VERSION, "changes": [self._to_entry(change) for change in changes]}
            with new_file(self.path, overwrite=True) as out:
                out.write(json.dumps(stored, indent=1).encode())
            sync_folder(self.path.parent)
        except OSError as error:
            raise HostError(f"{self.path} could not be written: {error.strerror or error}") from error


class Manifest(ChangeList[Change]):
    """Changed choices of Fix all: each is in the JSON file next to a checkpoint, or in VAE Lab's own list.

    Args:
        path: the JSON file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _entry, _change)

    @staticmethod
    def merged(earlier: Sequence[Change], later: Sequence[Change]) -> list[Change]:
        """One list that undoes both: what was changed twice goes back to what it was before the first time."""
        changes = {(change.file, change.checkpoint if not change.file else ""): change for change in earlier}
        for change in later:
            key = (change.file, change.checkpoint if not change.file else "")
            first = changes.get(key)
            changes[key] = replace(change, before=first.before) if first and first.after == change.before else change
        return list(changes.values())


def _entry(change: Change) -> dict[str, Any]:
    before = None if change.before is None else base64.b64encode(change.before).decode()
    return {
        "checkpoint": change.checkpoint, "path": change.path, "vae": change.vae, "file": change.file,
        "before": before, "after": base64.b64encode(change.after).decode(),
    }  # fmt: skip


def _change(entry: Any) -> Change:
    """Raises ValueError, KeyError or TypeError: it is not of the JSON file next to a file of weights."""
    words = {name: entry[name] for name in ("checkpoint", "path", "vae", "file")}
    if not all(isinstance(word, str) for word in words.values()):
        raise ValueError("not a change")
    before = None if entry["before"] is None else _bytes(entry["before"])
    change = Change(**words, before=before, after=_bytes(entry["after"]))
    if change.file:
        near = Path(change.path)
        is_metadata = near.suffix.lower() in WEIGHT_SUFFIXES and metadata_file(change.path) == Path(change.file)
        contents = (content for content in (before, change.after) if content is not None)
        if not is_metadata or not all(isinstance(json.loads(content.decode("utf8")), dict) for content in contents):
            raise ValueError("not the file of a checkpoint")
    return change


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error

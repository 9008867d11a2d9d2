"""The VAE chosen for each checkpoint of a host, whichever checkpoint is in use: read, written, and put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vae_lab.autoencoders import open_vae
from vae_lab.errors import VaeLabError
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.preferences import (
    NO_VAE_FILE,
    metadata_file,
    read_metadata,
    read_preference,
    webui_reads,
    with_preference,
    write_metadata,
)

__all__ = ["Change", "CheckpointChoices", "JsonChoices", "JsonFiles", "StoredChoices"]


@dataclass(frozen=True)
class Change:
    """A choice for one checkpoint, as it is stored.

    Attributes:
        checkpoint: its name.
        path: its file.
        vae: name of the VAE chosen.
        file: where the choice is stored, next to the checkpoint; "" for VAE Lab's own list.
        before: content of ``file`` before, or the own choice in UTF-8; None without one.
        after: the same, with the choice.
    """

    checkpoint: str
    path: str
    vae: str
    file: str
    before: bytes | None
    after: bytes


class StoredChoices(Protocol):
    """Where choices are stored. Errors are :class:`VaeLabError`."""

    def content(self, change: Change) -> bytes | None:
        """What is stored now where ``change`` was made; None if nothing is."""
        ...

    def write(self, change: Change, content: bytes | None) -> None:
        """Store ``content`` where ``change`` was made; None removes it."""
        ...


class CheckpointChoices(StoredChoices, Protocol):
    """What a host stores for each checkpoint."""

    def chosen(self, checkpoint: str) -> str:
        """Name of the VAE chosen for a checkpoint, ``Built-in`` or ``Automatic``; it may no longer exist."""
        ...

    def problem(self, vae: str) -> str:
        """Why the host cannot use a VAE for a checkpoint, or ""."""
        ...

    def file(self, checkpoint: str) -> str:
        """The file that stores the choice; "" for VAE Lab's own list."""
        ...

    def prepare(self, checkpoint: str, vae: str) -> Change:
        """The change that a choice makes; nothing is written yet."""
        ...


class JsonFiles:
    """Choices in the JSON files next to the checkpoints, of any host: enough to put them back."""

    def content(self, change: Change) -> bytes | None:
        return read_metadata(Path(change.file))

    def write(self, change: Change, content: bytes | None) -> None:
        write_metadata(Path(change.file), content)


class JsonChoices(JsonFiles):
    """Choices as preferences in the JSON file next to each checkpoint.

    Args:
        key: under which the host reads them.
        checkpoints, vaes: return name -> file, as listed last.
        native_name: returns what the host calls a VAE there; raises HostError if it cannot be named.
        listed_name: the other way round: what our lists call it.
        any_layout: whether the host loads every VAE that VAE Lab can read.
    """

    def __init__(
        self,
        key: str,
        checkpoints: Callable[[], Mapping[str, Path]],
        vaes: Callable[[], Mapping[str, Path]],
        native_name: Callable[[str], str],
        listed_name: Callable[[str], str],
        *,
        any_layout: bool = False,
    ) -> None:
        self._key = key
        self._checkpoints = checkpoints
        self._vaes = vaes
        self._native_name = native_name
        self._listed_name = listed_name
        self._any_layout = any_layout

    def chosen(self, checkpoint: str) -> str:
        preferred = read_preference(str(self._checkpoints()[checkpoint]), self._key)
        if preferred in (AUTOMATIC, NO_VAE_FILE):
            return AUTOMATIC if preferred == AUTOMATIC else BUILT_IN
        return self._listed_name(preferred)

    def problem(self, vae: str) -> str:
        try:
            self._native_name(vae)
            if not self._any_layout:
                with open_vae(self._vaes()[vae]) as file:
                    if not webui_reads(file):
                        return f"{vae} has a layout that the WebUI itself cannot load ({file.layout.label})"
        except VaeLabError as error:
            return str(error)
        return ""

    def file(self, checkpoint: str) -> str:
        return str(metadata_file(str(self._checkpoints()[checkpoint])))

    def prepare(self, checkpoint: str, vae: str) -> Change:
        path = str(self._checkpoints()[checkpoint])
        before, after = with_preference(path, self._key, self._native_name(vae))
        return Change(checkpoint, path, vae, self.file(checkpoint), before, after)

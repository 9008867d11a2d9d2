"""Fix all: choose a healthy VAE for every checkpoint whose own is broken or missing, and undo all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vae_lab.autoencoders import open_vae
from vae_lab.errors import FileError, HostError, UnknownChoice, VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.checkpoint_choices import Change, CheckpointChoices, StoredChoices
from vae_lab.library.folders import is_file
from vae_lab.library.remedies import Remedy, find_remedies, without_shared
from vae_lab.service.manifest import Manifest
from vae_lab.service.runs import Runs

__all__ = ["FixPlan", "FixResult", "FixService", "UndoneFixes", "undo_fixes"]

MANIFEST = "fixes.json"
"""Name of the list of changes, in a host's data folder."""


@dataclass(frozen=True)
class FixPlan:
    """What would be done, and what can be undone.

    Attributes:
        remedies: one for each checkpoint that is known to be broken or to have no VAE.
        unchecked: number of checkpoints of which nothing is known, because no scan has checked them yet.
        changed: what was changed and can be undone: name of the checkpoint, name of the VAE.
        remark: what takes precedence over these choices, as a sentence; "" if nothing does.
    """

    remedies: Sequence[Remedy]
    unchecked: int = 0
    changed: Sequence[tuple[str, str]] = ()
    remark: str = ""

    @property
    def usable(self) -> list[Remedy]:
        """Those with a VAE to use."""
        return [remedy for remedy in self.remedies if remedy.action == "use"]

    @property
    def left(self) -> list[Remedy]:
        """Those that cannot be fixed."""
        return [remedy for remedy in self.remedies if remedy.action == "none"]


@dataclass(frozen=True)
class FixResult:
    """What was done.

    Attributes:
        changed: name of the checkpoint, name of the VAE.
        failed: name of the checkpoint, and why its choice could not be written.
    """

    changed: Sequence[tuple[str, str]]
    failed: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class UndoneFixes:
    """What was put back.

    Attributes:
        restored: names of checkpoints whose choice is as it was before.
        refused: name of the checkpoint, and why it was not put back.
    """

    restored: Sequence[str]
    refused: Sequence[tuple[str, str]]


class FixService:
    """Plans, makes and undoes the choices. Thread-safe.

    Args:
        host: of the files.
        runs: of the host; a fix is one of them.
        manifest: where to store what can be undone; by default in the host's data folder.
    """

    def __init__(self, host: Host, runs: Runs, manifest: Path | None = None) -> None:
        self._host = host
        self._runs = runs
        self._given = manifest
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """The list of what can be undone."""
        return Manifest(self._given or self._host.data_folder() / MANIFEST)

    def changed(self) -> list[tuple[str, str]]:
        """What was changed and can be undone: name of the checkpoint, name of the VAE.

        Raises:
            HostError: the list cannot be read.
        """
        return [(change.checkpoint, change.vae) for change in self.manifest.read()]

    def plan(self, *, fresh: bool = True) -> FixPlan:
        """What would be done, by the results of scans; only reads the headers of broken checkpoints.

        Args:
            fresh: list the host's files again.

        Raises:
            HostError: VAE Lab cannot choose a VAE in this host.
        """
        host, choices = self._host, self._host.checkpoint_choices()
        listing = host.listing(fresh=fresh)
        checked = host.file_cache.checked
        records = {name: checked(str(path)) for name, path in host.checkpoint_files().items()}
        vaes = {name: checked(str(path)) for name, path in listing.vaes.items()}
        known = {name: record for name, record in records.items() if record is not None}
        problem = _Fitting(choices, host.checkpoint_files(), listing.vaes).problem
        remedies = find_remedies(known, vaes, choices.chosen, problem, host.preferred_vaes())
        if remedies:
            remedies = without_shared(remedies, {name: choices.file(name) for name in records})
        return FixPlan(remedies, len(records) - len(known), self.changed(), host.before_checkpoint_choices())

    def usable(self, fresh: bool = True) -> list[Remedy]:
        """The remedies of :meth:`plan` with a VAE to use. Raises what that raises."""
        return self.plan(fresh=fresh).usable

    def apply(self, checkpoints: Collection[str] | None = None) -> FixResult:
        """Write the planned choices.

        Args:
            checkpoints: names of those to fix; None for all that can be.

        Raises:
            UnknownChoice: one of them has no planned choice; nothing was changed.
            HostError: what is needed for Undo cannot be written, and nothing was changed; or another task is running.
        """
        with self._lock, self._runs.one_at_a_time():
            usable = {remedy.checkpoint: remedy for remedy in self.plan().usable}
            unknown = [name for name in checkpoints or () if name not in usable]
            if unknown:
                raise UnknownChoice(f"there is nothing to fix for {unknown[0]}")
            wanted = [remedy for name, remedy in usable.items() if checkpoints is None or name in checkpoints]
            with self.manifest.alone(create=bool(wanted)):
                return self._apply(self._host.checkpoint_choices(), wanted)

    def _apply(self, choices: CheckpointChoices, remedies: Sequence[Remedy]) -> FixResult:
        planned, failed = _prepared(choices, remedies)
        earlier = self.manifest.read()
        if planned:  # before anything is changed: a program that is killed leaves a list that undoes what it has done
            self.manifest.write(Manifest.merged(earlier, planned))
        done: list[Change] = []
        try:
            for i, change in enumerate(planned):
                self._runs.report(i, len(planned), change.checkpoint)
                try:
                    choices.write(change, change.after)
                    done.append(change)
                except VaeLabError as error:
                    failed.append((change.checkpoint, str(error)))
        finally:
            if len(done) < len(planned):
                with suppress(HostError):  # the longer list is as good: what was not changed is as it was before
                    self.manifest.write(Manifest.merged(earlier, done))
        return FixResult([(change.checkpoint, change.vae) for change in done], failed)

    def undo(self) -> UndoneFixes:
        """Put back everything that was changed.

        Raises:
            UnknownChoice: there is nothing to undo.
            HostError: the list of changes cannot be read, or another task is running.
        """
        with self._lock, self._runs.one_at_a_time():
            return undo_fixes(self._host.checkpoint_choices(), self.manifest, self._runs.report)


def undo_fixes(
    choices: StoredChoices, manifest: Manifest, progress: Callable[[int, int, str], None] = lambda *_: None
) -> UndoneFixes:
    """Put back everything in a manifest. What could not be written stays in it.

    Args:
        choices: where the choices are stored.
        manifest: what was changed.
        progress: called before each.

    Raises:
        UnknownChoice: there is nothing to undo.
        HostError: the manifest cannot be read.
    """
    with manifest.alone():
        return _undo(choices, manifest, progress)


def _undo(choices: StoredChoices, manifest: Manifest, progress: Callable[[int, int, str], None]) -> UndoneFixes:
    changes = manifest.read()
    if not changes:
        raise UnknownChoice("There is nothing to undo")
    restored: list[str] = []
    refused: list[tuple[str, str]] = []
    left: list[Change] = []
    for i, change in enumerate(changes):
        progress(i, len(changes), change.checkpoint)
        try:
            why = _restore(choices, change)
        except VaeLabError as error:
            left.append(change)
            why = str(error)
        if why:
            refused.append((change.checkpoint, why))
        else:
            restored.append(change.checkpoint)
    manifest.write(left)
    return UndoneFixes(restored, refused)


def _restore(choices: StoredChoices, change: Change) -> str:
    """Put one back. Returns why it must stay as it is, or ""."""
    if change.file and not is_file(Path(change.path)):
        return f"{change.path} no longer exists"
    now = choices.content(change)
    if now == change.before:
        return ""
    if now != change.after:
        return f"{change.file or change.checkpoint} was changed since, so it stays as it is"
    choices.write(change, change.before)
    return ""


def _prepared(choices: CheckpointChoices, remedies: Sequence[Remedy]) -> tuple[list[Change], list[tuple[str, str]]]:
    """The changes, one for each file, and what cannot be prepared, with the reason."""
    planned: dict[str, Change] = {}
    failed: list[tuple[str, str]] = []
    for remedy in remedies:
        try:
            change = choices.prepare(remedy.checkpoint, remedy.vae)
        except VaeLabError as error:
            failed.append((remedy.checkpoint, str(error)))
            continue
        planned.setdefault(change.file or change.checkpoint, change)
    return list(planned.values()), failed


class _Fitting:
    """Whether checkpoints can use VAEs of their family; reads headers, each only once."""

    def __init__(self, choices: CheckpointChoices, checkpoints: Mapping[str, Path], vaes: Mapping[str, Path]) -> None:
        self._choices = choices
        self._checkpoints = checkpoints
        self._vaes = vaes
        self._problems: dict[str, str] = {}
        self._shapes: dict[Path, Mapping[str, tuple[int, ...]]] = {}

    def problem(self, checkpoint: str, vae: str) -> str:
        """Why a checkpoint cannot use a VAE, or ""."""
        if vae not in self._problems:
            self._problems[vae] = self._choices.problem(vae)
        own, other = self._shapes_in(self._checkpoints[checkpoint]), self._shapes_in(self._vaes[vae])
        differs = own and own != other  # of a checkpoint without a whole VAE, nothing is known
        return self._problems[vae] or (f"{vae} has other layers than the VAE in {checkpoint}" if differs else "")

    def _shapes_in(self, path: Path) -> Mapping[str, tuple[int, ...]]:
        if path not in self._shapes:
            try:
                with open_vae(path) as file:
                    self._shapes[path] = {} if file.half else {name: tuple(s) for name, s in file.shapes.items()}
            except FileError:
                self._shapes[path] = {}
        return self._shapes[path]

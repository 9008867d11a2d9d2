"""What is known of the files on a disk, remembered between runs."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import diskcache

from vae_lab.autoencoders import VaeFile, open_vae
from vae_lab.checkup import Checkup, Finding, Report, Verdict, identity_key, inspect_file
from vae_lab.errors import FileError
from vae_lab.identity import (
    KnownVae,
    Merge,
    Parent,
    Sketch,
    explain_merge,
    fingerprint,
    sketch_digest,
    sketch_of_file,
)
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.library.folders import FileKey, file_key

__all__ = ["Checkups", "FactsCache", "VaeFacts"]

log = logging.getLogger("vae_lab")

REPORT_VERSION = 4  # the same of reports
_NOT_USABLE = (sqlite3.Error, diskcache.Timeout, OSError)  # no room, no permission, locked, damaged


@dataclass(frozen=True)
class VaeFacts:
    """What was found in one file.

    Attributes:
        family_id: latent family, or "" if the weights do not tell.
        fingerprint: of the VAE's weights, or "" if there is none.
        problem: why the file's VAE cannot be used, or "".
        architecture: such as ``AutoencoderKL``.
    """

    family_id: str = ""
    fingerprint: str = ""
    problem: str = ""
    architecture: str = ""

    @property
    def family(self) -> Family | None:
        """The latent family, where known."""
        return FAMILIES.get(self.family_id)


class _InMemory:
    """What remembers as a ``diskcache.Cache`` does, for as long as the program runs."""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        return self._kept.get(key)

    def set(self, key: Any, value: Any) -> None:
        self._kept[key] = value

    def close(self) -> None:
        self._kept.clear()


class FactsCache:
    """Facts by file. A file is known by path, size and times of change, so a replaced one is looked at anew.

    What cannot be written is remembered in memory, until the program ends; that is told once, in the log.

    Args:
        folder: where it is kept.
        required: raise sqlite3.Error, diskcache.Timeout or OSError if the folder cannot be used at all.
    """

    def __init__(self, folder: Path, *, required: bool = False) -> None:
        self._told = False
        self._unwritten: dict[Any, Any] = {}
        self._cache: diskcache.Cache | _InMemory
        try:
            self._cache = diskcache.Cache(str(folder), eviction_policy="none")
        except _NOT_USABLE as error:
            if required:
                raise
            self._tell(f"in {folder} cannot be used", error)
            self._cache = _InMemory()

    def get(self, key: Any) -> Any:
        """What is stored; None if there is nothing, or it cannot be read."""
        if key in self._unwritten:
            return self._unwritten[key]
        try:
            return self._cache.get(key)
        except _NOT_USABLE as error:
            self._tell("cannot be read", error)
            return None

    def set(self, key: Any, value: Any) -> None:
        """Store, on the disk if that can be written."""
        try:
            self._cache.set(key, value)
        except _NOT_USABLE as error:
            self._unwritten[key] = value
            self._tell("cannot be written", error)
        else:
            self._unwritten.pop(key, None)

    def _tell(self, what: str, error: BaseException) -> None:
        if not self._told:
            self._told = True
            reason = str(error) or type(error).__name__
            log.warning("VAE Lab: the cache of what is known of files %s, so files are read again: %s", what, reason)

    def known(self, path: str) -> VaeFacts | None:
        """What was found earlier, if the file has not changed since. Reads nothing of the file."""
        key = file_key(path)
        stored = self.get(key) if key else None
        return VaeFacts(**stored) if isinstance(stored, dict) else None

    def look(self, path: str) -> VaeFacts:
        """As :meth:`known`, reading the VAE's weights where needed. A bad file is a fact too, never an exception."""
        facts = self.known(path)
        if facts is None:
            key = file_key(path)
            facts = _read_facts(path)
            if key and key == file_key(path):  # else it was replaced in between
                self.set(key, asdict(facts))
        return facts

    def remember(self, path: str, facts: VaeFacts) -> None:
        """Note what was found of a file by other means."""
        key = file_key(path)
        if key:
            self.set(key, asdict(facts))

    def close(self) -> None:
        """Give the cache's files back."""
        self._cache.close()

    @property
    def store(self) -> diskcache.Cache | _InMemory:
        """The cache itself, which raises what :meth:`get` and :meth:`set` put up with."""
        return self._cache


class Checkups:
    """Reports by file, and checkups by identity: the same weights are put through the chart once, whatever their name.

    Remembered between runs, in the same store as ``facts``. Safe to use from several threads.
    """

    def __init__(self, facts: FactsCache) -> None:
        self._facts = facts

    # --- by identity; a vae_lab.checkup.Memory ---------------------------------------------------------------

    def get(self, key: str) -> Checkup | None:
        """The checkup of that identity, if it was made before."""
        stored = self._facts.get(("checkup", key))
        return Checkup.from_json(stored) if isinstance(stored, dict) else None

    def put(self, key: str, checkup: Checkup) -> None:
        """Remember a checkup."""
        self._facts.set(("checkup", key), checkup.to_json())

    # --- by file ---------------------------------------------------------------------------------------------

    def known(self, path: str) -> Report | None:
        """The report on a file that was made before, if the file has not changed since. Reads nothing of the file."""
        key = file_key(path)
        stored = self._facts.get(("report", REPORT_VERSION, *key)) if key else None
        return self._restored(stored) if isinstance(stored, dict) else None

    def known_verdict(self, path: str) -> Verdict | None:
        """As :meth:`known`, the verdict alone: cheap enough to ask for every file of a large library."""
        key = file_key(path)
        stored = self._facts.get(("verdict", REPORT_VERSION, *key)) if key else None
        return Verdict.from_json(stored) if isinstance(stored, dict) else None

    def look(self, path: str, relatives: Mapping[str, str] | None = None) -> Report:
        """Inspect a file, or give the report that was made before.

        Args:
            path: a checkpoint or a VAE.
            relatives: name -> file of VAEs that it may be merged from; those are looked at by sketch alone.
        """
        report = self.known(path)
        if report is not None and not relatives:
            return report
        if report is None:
            key = file_key(path)
            report = inspect_file(path, memory=self)
            if key and key == file_key(path):  # else it was replaced in between
                self._remember(key, report)
                self._facts.remember(path, _facts_of(report))
        if relatives and report.fingerprint:
            report = self._explained(report, relatives)
            key = file_key(path)
            if key:
                self._remember(key, report)
        return report

    def sketch(self, path: str, opened: VaeFile | None = None) -> Sketch | None:
        """The sketch of a file's VAE; None if there is none. Read from the file once, until it changes.

        Kept by what it holds: a thousand checkpoints with one VAE take the room of one sketch.

        Args:
            path: a checkpoint or a VAE.
            opened: the same file, if it is open.
        """
        key = file_key(path)
        digest = self._facts.get(("sketch", *key)) if key else None
        if isinstance(digest, str):
            stored = self._facts.get(("sketch", digest)) if digest else b""
            if isinstance(stored, bytes):
                return Sketch.from_bytes(stored) if stored else None
        try:
            with nullcontext(opened) if opened else open_vae(path) as file:
                sketch = sketch_of_file(file)
        except FileError:
            sketch = None
        if key and key == file_key(path):  # else it was replaced in between
            digest = sketch_digest(sketch) if sketch else ""
            if sketch:
                self._facts.set(("sketch", digest), sketch.to_bytes())
            self._facts.set(("sketch", *key), digest)
        return sketch

    def _remember(self, key: FileKey, report: Report) -> None:
        self._facts.set(("report", REPORT_VERSION, *key), _stored(report))
        self._facts.set(("verdict", REPORT_VERSION, *key), report.verdict.to_json())

    def _restored(self, record: Mapping[str, Any]) -> Report | None:
        """The inverse of :func:`_stored`; None if the checkup is not remembered any longer."""
        merge, checkup = record["merge"], None
        if record["checkup"]:
            checkup = self.get(identity_key(record["fingerprint"], FAMILIES.get(record["hint_id"])))
            if checkup is None:
                return None
        return Report(
            **{name: record[name] for name in _PLAIN},
            file_findings=tuple(map(Finding.from_json, record["file_findings"])),
            checkup=checkup,
            identity=KnownVae(**record["identity"]) if record["identity"] else None,
            merge=merge and Merge(tuple(Parent(**p) for p in merge["parents"]), merge["residual"], merge["relatives"]),
        )

    def _explained(self, report: Report, relatives: Mapping[str, str]) -> Report:
        target = self.sketch(report.path)
        if target is None:
            return report
        own = str(Path(report.path).resolve())
        others = {name: path for name, path in relatives.items() if str(Path(path).resolve()) != own}
        sketches = {name: sketch for name, path in others.items() if (sketch := self.sketch(path)) is not None}
        return report.with_merge(explain_merge(target, sketches))


def _facts_of(report: Report) -> VaeFacts:
    return VaeFacts(
        family_id=report.family_id,
        fingerprint=report.fingerprint,
        problem=report.problem,
        architecture=report.architecture,
    )


_PLAIN = [f.name for f in fields(Report) if f.name not in ("checkup", "file_findings", "identity", "merge")]


def _stored(report: Report) -> dict[str, Any]:
    """Everything in plain values; of the checkup only that there is one, since its charts are kept by identity."""
    record = {name: getattr(report, name) for name in _PLAIN}
    record["file_findings"] = [finding.to_json() for finding in report.file_findings]
    record["checkup"] = report.checkup is not None
    record["identity"] = asdict(report.identity) if report.identity else None
    record["merge"] = asdict(report.merge) if report.merge else None
    return record


def _read_facts(path: str) -> VaeFacts:
    try:
        with open_vae(path) as file:
            state = file.state_dict()
            family = file.load(state=state).family
            return VaeFacts(
                family_id=family.id if family else "",
                fingerprint=fingerprint(state),
                architecture=file.architecture.name,
            )
    except FileError as error:
        return VaeFacts(problem=error.reason)

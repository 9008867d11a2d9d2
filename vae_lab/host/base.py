"""What pages, script and API need from the program that VAE Lab runs in.

One contract suite runs on every host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vae_lab.autoencoders import Autoencoder
from vae_lab.checkup import Checkup, Verdict
from vae_lab.comparison import Coder, Comparison, RoundTrip, round_trip
from vae_lab.comparison.compare import OnResult
from vae_lab.comparison.round_trip import check_encodes, coder_of
from vae_lab.decoding import error_line
from vae_lab.errors import FamilyMismatch, HostError, UnknownChoice, VaeLabError
from vae_lab.host.about import versions
from vae_lab.host.checkpoint_choices import CheckpointChoices
from vae_lab.host.choices import (
    AUTOMATIC,
    BUILT_IN,
    Choice,
    Decision,
    OnBroken,
    Reach,
    StandingChoices,
    resolve,
    unknown_vae,
)
from vae_lab.identity import PublishedVae, published_vaes, short
from vae_lab.latents import Generation, GenerationStore
from vae_lab.latents.family import Family
from vae_lab.library import FileCache, FileRecord, Listing, Recommendation, recommend
from vae_lab.library.folders import is_file, own_vaes
from vae_lab.progress import Progress

__all__ = ["Host", "MemoryCheckup", "Place", "VaeEntry"]

_MAX_CHECKED = 12  # VAEs, in search of one to recommend; each takes seconds


@dataclass(frozen=True)
class VaeEntry:
    """One VAE that the user has.

    Attributes:
        name: unique among the host's VAEs, for menus; a path relative to its folder.
        path: the file.
        family: its latent family; None if not determined yet, or not possible.
        problem: why it cannot be used, if known; else "".
        weights: the same for files with the same weights; "" if they were not read yet.
        recent: whether it is among those used last.
    """

    name: str
    path: str
    family: Family | None = None
    problem: str = ""
    weights: str = ""
    recent: bool = False

    @property
    def label(self) -> str:
        """The name and what is known about the VAE; never shortened, so that labels are unique."""
        note = self.problem or (self.family.title if self.family else "")
        return f"{self.name} · {note}" if note else self.name


@dataclass(frozen=True)
class MemoryCheckup:
    """The last checkup of the VAE that a host has in memory.

    Attributes:
        checkup: of the decoder: what the host itself decodes from the chart's latents.
        precision: in which the host decodes, such as ``float16``.
        name: the VAE's, as in :class:`Decision`.
        checkpoint: file of the checkpoint that was loaded.
    """

    checkup: Checkup
    precision: str
    name: str
    checkpoint: str = ""


@dataclass(frozen=True)
class Place:
    """Device and precision for VAEs that we load ourselves, apart from the host's model."""

    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32


class Host(ABC):
    """The program that VAE Lab runs in.

    Every method may be called from any thread; those that need the model wait for their turn.
    Errors are :class:`vae_lab.errors.VaeLabError` with a one-line message for the user.
    """

    name: str
    """Human-readable, such as ``WebUI 1.10.1``."""

    generations: GenerationStore
    """The latents that can be decoded again, newest first."""

    how_to_begin: str
    """What a user without any stored latents should do, in a sentence or two."""

    language: str = ""
    """Language of messages, such as ``zh_CN``; "" is English. It may change while the host runs."""

    chooses_language: bool = False
    """Whether each of our pages chooses its language; False if the host has its own setting, see ``language``."""

    chooses_checkpoint: bool = False
    """Whether our pages offer :meth:`select_checkpoint`; False if the host has its own menu for that."""

    choices_reach_all: bool = True
    """Whether a choice of a VAE for every checkpoint changes anything."""

    on_broken: OnBroken = "ask"
    """What to do when a checkpoint is loaded whose own VAE is broken or missing; it may change while the host runs."""

    file_cache: FileCache
    """Records of files, stored between runs."""

    not_found: tuple[str, ...] | None = None
    """Parts of the program that we need and did not find, so that only files can be worked with; empty if that is
    because of an error. None if everything works."""

    published: Sequence[PublishedVae] = published_vaes()
    """Which files may be downloaded, the recommended one of each family first."""

    _last_listing: Listing | None = None

    def about(self) -> dict[str, str]:
        """What VAE Lab runs in and what it found there: name -> value, for bug reports. Names no folder of the user."""
        status = "everything works" if self.not_found is None else "works with files only"
        if self.not_found:
            status = f"{status}; not found: {', '.join(self.not_found)}"
        return {"Host": self.name, **versions(), "Status": status}

    @abstractmethod
    def list_files(self) -> Listing:
        """List the host's files now, walking each folder once."""

    def listing(self, *, fresh: bool = False) -> Listing:
        """The host's files, as last listed.

        Args:
            fresh: list them now. Each action of a user does so once, before anything else; displays of known facts,
                such as a badge, do not.
        """
        listing = self._last_listing
        if fresh or listing is None:
            listing = self._last_listing = self.list_files()
        return listing

    def vae_files(self) -> Mapping[str, Path]:
        """Name -> file of all external VAEs in the host's folders, in the host's order, as last listed."""
        return self.listing().vaes

    def vae_file(self, name: str) -> Path | None:
        """File of an external VAE, or None. Lists the files again if it is not where it was listed last."""
        path = self.listing().vaes.get(name)
        if path is None or not is_file(path):
            path = self.listing(fresh=True).vaes.get(name)
        return path

    def vaes(self) -> list[VaeEntry]:
        """All external VAEs, with what is known about them. Cheap: reads no weights."""
        recent = self.file_cache.recent()
        return [self._entry(name, str(path), str(path) in recent) for name, path in self.vae_files().items()]

    def _entry(self, name: str, path: str, recent: bool) -> VaeEntry:
        record = self.file_cache.known(path)
        if record is None:
            return VaeEntry(name, path, recent=recent)
        return VaeEntry(name, path, record.family, record.problem, record.fingerprint, recent)

    def note_used(self, names: Iterable[str]) -> None:
        """These VAEs were compared or chosen: they come first in long lists. Names of no external VAE are ignored."""
        files = self.vae_files()
        self.file_cache.note_used(str(files[name]) for name in names if name in files)

    def identify(self, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None) -> list[VaeEntry]:
        """As :meth:`vaes`, listed again, with the family of each from its weights, or its problem."""
        files = self.listing(fresh=True).vaes
        for i, (name, path) in enumerate(files.items()):
            if cancelled and cancelled():
                break
            if progress:
                progress(i, len(files), name)
            self.file_cache.identify(str(path))
        return self.vaes()

    def checkpoint_files(self) -> Mapping[str, Path]:
        """Name -> file of all checkpoints, in the host's order, as last listed."""
        return self.listing().checkpoints

    @abstractmethod
    def library_folders(self) -> list[Path]:
        """All folders that the host searches for checkpoints and VAEs, and single files that its options name.

        Missing ones are omitted.
        """

    def vae_folder(self) -> Path:
        """Where a new VAE file belongs; the folder may not exist yet.

        Raises:
            HostError: there is no such folder.
        """
        raise HostError(f"{self.name} has no folder for VAEs")

    def refresh_vaes(self) -> None:
        """A VAE file was added: list it here, and in the host's own lists."""
        self.listing(fresh=True)

    def checkpoints(self) -> list[str]:
        """Names of the host's checkpoints."""
        return list(self.checkpoint_files())

    def wait_until_loaded(self) -> None:  # noqa: B027  for hosts that load a model
        """Wait until the checkpoint in use, which may just be reported, is loaded."""

    @abstractmethod
    def current_checkpoint(self) -> str:
        """Name of the checkpoint in use, or "" if there is none."""

    def select_checkpoint(self, name: str) -> str:
        """Make ``name`` the checkpoint in use. Returns "", or a sentence on what could not be saved.

        Raises:
            UnknownChoice: no checkpoint has that name.
            HostError: the host has its own menu for that.
        """
        raise HostError(f"select the checkpoint {name} in the menu of {self.name}")

    def refresh(self) -> list[str]:
        """List files and latents again. Returns a line for each file that cannot be used, the first time it is seen."""
        self.listing(fresh=True)
        return []  # for hosts that capture latents during generation

    def decision(self, generation_choice: str = AUTOMATIC) -> Decision:
        """Which VAE would decode the next image if the accordion's choice were ``generation_choice``.

        Reads a chosen VAE that is not known yet: one that does not fit would not decode.
        """
        choice = resolve(self.standing_choices(), generation_choice)
        if choice.source == "host":
            return self.host_decision()
        decision = self.decision_for(choice)
        try:
            self.check_fits(choice.vae)
        except VaeLabError as error:
            instead = self.host_decision()
            return replace(
                instead, reason=f"{instead.reason} This choice is refused: {decision.reason} The reason is: {error}."
            )
        return decision

    @abstractmethod
    def standing_choices(self) -> StandingChoices:
        """The user's saved choices that VAE Lab, not the host, applies."""

    @abstractmethod
    def decision_for(self, choice: Choice) -> Decision:
        """The decision that a choice of the user leads to, whether or not its file still exists."""

    @abstractmethod
    def host_decision(self) -> Decision:
        """Which VAE the host itself uses, without VAE Lab."""

    def chosen(self, reach: Reach) -> str:
        """What the user has saved, by its name in the lists, whether or not another choice takes precedence.

        Args:
            reach: ``always``, or ``checkpoint`` for the one in use.
        """
        standing = self.standing_choices()
        return standing.always if reach == "always" else standing.checkpoint

    def built_in_of(self, generation: Generation) -> str:  # noqa: ARG002  for hosts that know it
        """Name of the checkpoint whose VAE is the built-in one of ``generation``, or ""."""
        return self.current_checkpoint()

    @abstractmethod
    def compare(
        self,
        generation_id: str,
        vaes: Sequence[str],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_result: OnResult | None = None,
    ) -> Comparison:
        """Decode a stored generation with the built-in VAE and with each of ``vaes``; nothing is sampled.

        A VAE that cannot be used gives a result with the reason instead of images. ``on_result`` is called after each
        VAE with the results so far.

        Raises:
            UnknownChoice: the generation is no longer stored.
        """

    def digest(self, name: str, generation: Generation) -> str:  # noqa: ARG002  for hosts that know its checkpoint
        """Short fingerprint of a VAE that has decoded ``generation``; "" if unknown."""
        built_in = self.checkpoint_files().get(self.current_checkpoint())
        path = built_in if name == BUILT_IN else self.vae_file(name)
        record = self.file_cache.known(str(path)) if path else None
        return short(record.fingerprint) if record else ""

    @abstractmethod
    def use_for_checkpoint(self, vae: str) -> str:
        """Save ``vae`` as the choice for the current checkpoint. Returns a sentence on what happens now.

        Raises:
            HostError: the host has no such preference, or the VAE cannot be used.
            UnknownChoice: no VAE has that name.
            FamilyMismatch: its family is not the checkpoint's.
        """

    @abstractmethod
    def use_always(self, vae: str) -> str:
        """Save ``vae`` as the choice for every checkpoint. Returns a sentence on what happens now.

        Raises:
            VaeLabError: as for :meth:`use_for_checkpoint`.
        """

    def checkpoint_choices(self) -> CheckpointChoices:
        """What is stored for each checkpoint, whichever is in use.

        Raises:
            HostError: VAE Lab cannot choose a VAE in this host.
        """
        raise HostError("VAE Lab cannot choose a VAE here; choose it in the WebUI's own settings")

    def before_checkpoint_choices(self) -> str:
        """What takes precedence over a choice for one checkpoint now, as a sentence; "" if nothing does."""
        always = self.standing_choices().always
        return f"{always} is chosen for every checkpoint and takes precedence." if always != AUTOMATIC else ""

    def check_choice(self, vae: str) -> None:
        """Refuse what could not decode for the checkpoint in use, before it is saved.

        Raises:
            VaeLabError: as for :meth:`use_for_checkpoint`.
        """
        if vae not in (AUTOMATIC, BUILT_IN):
            self.listing(fresh=True)
        self.check_fits(vae)

    def check_fits(self, vae: str) -> None:
        """As :meth:`check_choice`, with the files as last listed."""
        if vae in (AUTOMATIC, BUILT_IN):
            return
        files = self.listing().vaes
        if vae not in files:
            raise unknown_vae(vae, files)
        facts = self.file_cache.identify(str(files[vae]))
        if facts.problem:
            raise HostError(f"{vae}: {facts.problem}")
        self._check_family(vae, facts)

    def _check_family(self, vae: str, facts: FileRecord) -> None:
        checkpoint = self.current_checkpoint()
        built_in = self.checkpoint_files().get(checkpoint)
        family = self.checkpoint_family() or (self.file_cache.identify(str(built_in)).family if built_in else None)
        if family is not None and facts.family is not None and facts.family.id != family.id:
            raise FamilyMismatch(f"{vae} is a VAE for {facts.family.title}, {checkpoint} is {family.title}")

    @abstractmethod
    def data_folder(self) -> Path:
        """Where VAE Lab may store its caches."""

    # --- VAEs that we load from their files; the host's model is never touched -------------------------------------

    def own_place(self) -> AbstractContextManager[Place]:
        """Where a VAE may be loaded while the context lasts; waits for its turn on the device."""
        return nullcontext(Place())

    def place_in_job(self) -> AbstractContextManager[Place]:
        """As :meth:`own_place`, for callers that already hold the host's queue, as every script hook does."""
        return self.own_place()

    def round_trip(
        self,
        image: Tensor,
        vaes: Sequence[str],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> RoundTrip:
        """Encode and decode an image with the built-in VAE and with each of ``vaes``.

        A VAE that cannot be used gives a result with the reason instead of an image.

        Args:
            image: [1,3,H,W] in 0..1; H and W are multiples of 8.
            vaes: names of VAEs or of checkpoints.
            progress: called before every encode and decode.
            cancelled: asked before each.
        """
        names = [BUILT_IN, *(name for name in dict.fromkeys(vaes) if name != BUILT_IN)]
        with self.own_place() as place:
            coders = [Coder(name, partial(self.own_vae, name, place)) for name in names]
            return round_trip(image, coders, progress=progress, cancelled=cancelled)

    def encode(self, image: Tensor, vae: str) -> tuple[Tensor, Family]:
        """Encode an image. Returns the latent, [1,C,h,w] in model space on the CPU, and its family.

        Args:
            image: [1,3,H,W] in 0..1; H and W are multiples of 8.
            vae: name of a VAE, or of a checkpoint for its built-in VAE.

        Raises:
            VaeLabError: the VAE cannot be used, or cannot encode this.
        """
        try:
            with self.own_place() as place, self.own_vae(vae, place) as own:
                check_encodes(own, image)
                latent, family = own.encode(image).float().cpu(), own.family
        except (RuntimeError, MemoryError) as error:  # from torch, for example out of memory
            raise HostError(error_line(vae, error)) from error
        if family is None:
            raise FamilyMismatch(f"{vae}: its latent family could not be determined from the weights")
        if not bool(torch.isfinite(latent).all()):
            raise HostError(f"{vae} produced NaN or infinite values, so there is no latent to store")
        return latent, family

    @contextmanager
    def own_vae(self, name: str, place: Place) -> Iterator[Autoencoder]:
        """Load a VAE, or the built-in VAE of a checkpoint, from its file.

        Raises:
            VaeLabError: there is none of that name, or it cannot be used.
        """
        path = str(self.file_of(name))
        record = self.file_cache.identify(path)
        if record.problem:
            raise HostError(f"{name}: {record.problem}")
        with coder_of(path, family=record.family, device=place.device, dtype=place.dtype) as own:
            fallback = self.checkpoint_family() if own.family is None else None
            fits = fallback is not None and fallback.latent_channels == own.latent_channels
            yield own.with_family(fallback) if fits else own

    # --- the checkup -----------------------------------------------------------------------------------------

    def file_of(self, name: str) -> Path:
        """File of a VAE or a checkpoint; of ``Built-in``, the current checkpoint's.

        Raises:
            UnknownChoice: no VAE and no checkpoint has that name.
        """
        found, checkpoint = self._file_of(name, self.listing())
        if found is None:  # it may have been added since
            found, checkpoint = self._file_of(name, self.listing(fresh=True))
        if found is None:
            raise UnknownChoice(f"no VAE and no checkpoint named {checkpoint or name}")
        return found

    def _file_of(self, name: str, listing: Listing) -> tuple[Path | None, str]:
        checkpoint = self.current_checkpoint() if name == BUILT_IN else name
        vae = None if name == BUILT_IN else listing.vaes.get(name)
        return vae or self.checkpoint_files().get(checkpoint), checkpoint

    def known_reports(self, names: Sequence[str]) -> dict[str, FileRecord]:
        """The records of those of ``names`` that have been checked, with charts. Reads none of the files."""
        files = {**self.checkpoint_files(), **self.vae_files()}
        known = {name: self.file_cache.checked(str(files[name])) for name in names if name in files}
        charted = {name: self.file_cache.with_charts(record) for name, record in known.items() if record is not None}
        return {name: record for name, record in charted.items() if record is not None}

    def known_verdicts(self, files: Mapping[str, Path]) -> dict[str, Verdict]:
        """As :meth:`known_reports`, for files by name, only the verdicts: fast enough for long lists."""
        known = {name: self.file_cache.checked(str(path)) for name, path in files.items()}
        return {name: record.verdict for name, record in known.items() if record is not None}

    def inspect(self, name: str) -> FileRecord:
        """Check a VAE or a checkpoint, and find out which of the user's VAEs, built-in ones too, it was merged from.

        Raises:
            UnknownChoice: no VAE and no checkpoint has that name.
        """
        return self._check(self.file_of(name))

    def _check(self, path: Path) -> FileRecord:
        vaes = {name: str(file) for name, file in self.vae_files().items()}
        checkpoints = {name: str(file) for name, file in self.checkpoint_files().items()}
        return self.file_cache.check(str(path), vaes, checkpoints)

    def memory_checkup(self) -> MemoryCheckup | None:
        """The last checkup of the VAE in memory; None if the host has none there, or it was not checked yet."""
        return None

    def used_instead(self) -> str:
        """For a checkpoint without a VAE: what the host really decodes with, as a sentence."""
        return self.decision().reason

    def preferred_vaes(self) -> Mapping[str, str]:
        """VAEs to recommend before all others: name -> where the user chose it, human-readable."""
        return {}

    def recommendation(
        self,
        *,
        search: bool = False,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Recommendation | None:
        """The VAE to choose for the current checkpoint if its own has faults.

        Args:
            search: whether to check VAEs that have not been checked yet, until a healthy one that fits is found, or
                too many have been checked.
            progress: called before each check.
            cancelled: asked before each check.
        """
        checkpoint = self.current_checkpoint()
        family = self.checkpoint_family()
        if not checkpoint or family is None:
            return None
        files, preferred = self.vae_files(), self.preferred_vaes()
        wanted = list(dict.fromkeys((*(name for name in preferred if name in files), *own_vaes(checkpoint, files))))
        order = list(dict.fromkeys((*wanted, *files)))
        found = recommend(checkpoint, family, self.known_reports(order), preferred)
        candidates = order[:_MAX_CHECKED]
        for i, name in enumerate(candidates):
            rank = order.index(found.name) if found else 0
            good_enough = found and found.fits and i >= min(rank, len(wanted))
            if not search or good_enough or (cancelled and cancelled()):
                break
            if progress:
                progress(i, len(candidates), name)
            self._check(files[name])
            found = recommend(checkpoint, family, self.known_reports(order), preferred)
        return found

    def known_recommendation(self, checkpoint: str) -> Recommendation | None:
        """The VAE to use for any checkpoint instead of a broken one, by what is known of the files; reads none."""
        known = self.file_cache.known
        path = self.checkpoint_files().get(checkpoint)
        record = known(str(path)) if path else None
        family = record.model_family if record else None
        if family is None:
            return None
        records = {name: each for name, file in self.vae_files().items() if (each := known(str(file))) is not None}
        return recommend(checkpoint, family, records, self.preferred_vaes())

    def checkpoint_family(self) -> Family | None:
        """Latent family of the current checkpoint, if known: that of its model, whatever VAE is built in."""
        path = self.checkpoint_files().get(self.current_checkpoint())
        record = self.file_cache.known(str(path)) if path else None
        return record.model_family if record else None

"""VAE Lab without a WebUI: the same tab over folders of files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from vae_lab.autoencoders import open_vae
from vae_lab.comparison import Candidate, Comparison, compare_candidates
from vae_lab.comparison.compare import OnResult
from vae_lab.decoding import Decoder, check_family
from vae_lab.errors import HostError, UnknownChoice, VaeLabError
from vae_lab.host.base import Host, Place
from vae_lab.host.checkpoint_choices import Change, CheckpointChoices, JsonChoices
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, Choice, Decision, Source, StandingChoices
from vae_lab.host.preferences import NO_VAE_FILE, WEBUI_KEY, metadata_file, write_preference
from vae_lab.identity import PublishedVae
from vae_lab.latents import GenerationStore, load_latents
from vae_lab.latents.family import Family
from vae_lab.library import FileCache, Listing
from vae_lab.library.cache import user_cache_folder
from vae_lab.library.folders import Walk, find_weight_files, is_file, is_folder, is_vae_next_to_checkpoint
from vae_lab.new_file import new_file
from vae_lab.progress import Progress
from vae_lab.text import natural_key

__all__ = ["Folders", "StandaloneHost"]

_TAESD = "VAE-taesd"
_MEMORY_FOR_LATENTS = 256 * 2**20


@dataclass(frozen=True)
class Folders:
    """The folders of the stand-alone host.

    Attributes:
        checkpoints, vaes, latents: searched with their subfolders.
        data: for saved choices.
        cache: for what is known about files; None for ``data``.
        webui: a choice for a checkpoint becomes a WebUI's preference, in the JSON file next to it.
    """

    data: Path
    checkpoints: tuple[Path, ...] = ()
    vaes: tuple[Path, ...] = ()
    latents: tuple[Path, ...] = ()
    cache: Path | None = None
    webui: bool = False

    @classmethod
    def of_models(cls, models: Path, data: Path | None = None, *, webui: bool = False) -> Folders:
        """The WebUI's own layout: ``models/Stable-diffusion``, ``models/VAE``; and ``models/latents``.

        Args:
            models: the folder; choices are saved in its subfolder ``vae-lab``. Caches are never stored among models,
                because someone who shares the folder could have prepared them.
            data: a folder for choices and caches; by default caches are in the user's cache folder.
            webui: choose VAEs for the WebUI that uses the folder, by the preferences next to its checkpoints.
        """
        return cls(
            data=data or models / "vae-lab",
            checkpoints=(models / "Stable-diffusion",),
            vaes=(models / "VAE", models / _TAESD),
            latents=(models / "latents",),
            cache=data or user_cache_folder(),
            webui=webui,
        )


@dataclass
class _Choices:
    """The saved choices, in ``choices.json``.

    Attributes:
        per_checkpoint: choices that are in no file that a WebUI reads.
    """

    file: Path
    checkpoint: str = ""
    always: str = AUTOMATIC
    per_checkpoint: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> _Choices:
        try:
            stored = json.loads(file.read_text(encoding="utf8"))
            return cls(file, str(stored["checkpoint"]), str(stored["always"]), dict(stored["per_checkpoint"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(file)

    def save(self) -> str:
        """Write the file. Returns "", or why it cannot be written: the choices then hold until the program ends."""
        values = {"checkpoint": self.checkpoint, "always": self.always, "per_checkpoint": self.per_checkpoint}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with new_file(self.file, overwrite=True) as out:
                out.write(json.dumps(values, indent=1).encode())
        except OSError as error:
            return f"{self.file}: {error.strerror or error}"
        return ""


@dataclass(frozen=True)
class _OwnChoices:
    """Choices in our own list: :class:`CheckpointChoices` of an app whose folders no WebUI uses."""

    choices: _Choices

    def chosen(self, checkpoint: str) -> str:
        return self.choices.per_checkpoint.get(checkpoint, AUTOMATIC)

    def problem(self, vae: str) -> str:  # noqa: ARG002  whatever VAE Lab can read
        return ""

    def file(self, checkpoint: str) -> str:  # noqa: ARG002
        return ""

    def prepare(self, checkpoint: str, vae: str) -> Change:
        before = self.choices.per_checkpoint.get(checkpoint)
        return Change(checkpoint, "", vae, "", before.encode() if before is not None else None, vae.encode())

    def content(self, change: Change) -> bytes | None:
        now = self.choices.per_checkpoint.get(change.checkpoint)
        return now.encode() if now is not None else None

    def write(self, change: Change, content: bytes | None) -> None:
        if content is None:
            self.choices.per_checkpoint.pop(change.checkpoint, None)
        else:
            self.choices.per_checkpoint[change.checkpoint] = content.decode()
        why = self.choices.save()
        if why:
            raise HostError(f"the choice is not saved: {why}")


class _PreferencesOfWebui(JsonChoices):
    """Choices that a WebUI reads. One that could not be written there comes first until it is replaced."""

    def __init__(self, host: StandaloneHost, choices: _Choices) -> None:
        super().__init__(WEBUI_KEY, host.checkpoint_files, host.vae_files, host.native_name, host.listed_name)
        self._choices = choices

    def chosen(self, checkpoint: str) -> str:
        return self._choices.per_checkpoint.get(checkpoint) or super().chosen(checkpoint)

    def write(self, change: Change, content: bytes | None) -> None:
        super().write(change, content)
        if self._choices.per_checkpoint.pop(change.checkpoint, None):
            self._choices.save()


def _by_name(path: Path) -> tuple[object, ...]:
    return natural_key(path.with_suffix("").as_posix())


class StandaloneHost(Host):
    """Folders of checkpoints, VAEs and latents; decodes on the CPU or on ``device``.

    Args:
        folders: see there.
        device: of torch.
        published: which files may be downloaded; None for those of the catalogue.
    """

    name = "VAE Lab, stand-alone"
    chooses_checkpoint = True
    chooses_language = True

    def __init__(
        self, folders: Folders, *, device: str = "cpu", published: Sequence[PublishedVae] | None = None
    ) -> None:
        self.folders = folders
        if published is not None:
            self.published = published
        self.choices_reach_all = not folders.webui  # a WebUI's settings are not ours to change from outside
        self.device = device
        self.generations = GenerationStore(_MEMORY_FOR_LATENTS)
        self.file_cache = FileCache(folders.cache or folders.data)
        self._choices = _Choices.load(folders.data / "choices.json")
        self._busy = threading.Lock()
        self._seen: dict[Path, int] = {}
        self._refreshing = threading.Lock()
        self._problems: list[str] = []  # of the first refresh, for the next one to report
        self.on_checkpoint_changed: Callable[[], None] = lambda: None
        where = " or ".join(map(str, folders.latents)) or "a folder passed to this app"
        self.how_to_begin = (
            f"Put latents (.safetensors, one tensor [B,C,h,w] in model space) into {where}, then press Refresh."
        )
        self._problems = self.refresh()

    def used_instead(self) -> str:
        decision = self.decision()
        return decision.reason if decision.vae != BUILT_IN else "There is no VAE: choose one for this checkpoint."

    def refresh(self) -> list[str]:
        """Load latents from files that are new or have changed; list all files again."""
        self.listing(fresh=True)
        with self._refreshing:
            # Added last to first, so that the list, newest first, is in the order of names.
            files = [path for _, path in find_weight_files(self.folders.latents)]
            problems = [self._load_latents(path) for path in sorted(files, key=_by_name, reverse=True)]
            earlier, self._problems = self._problems, []
        return earlier + [problem for problem in reversed(problems) if problem]

    def _load_latents(self, path: Path) -> str:
        try:
            changed = path.stat().st_mtime_ns
            if self._seen.get(path) == changed:
                return ""
            self._seen[path] = changed
            self.generations.add(replace(load_latents(path), id=self.generations.new_id()))
        except OSError as error:
            return f"{path}: {error.strerror}"
        except VaeLabError as error:
            return str(error)
        return ""

    def list_files(self) -> Listing:
        walk, own = Walk(), self.folders.vaes
        found = walk.find((*own, *self.folders.checkpoints))
        vaes = {n: p for n, p in found if is_vae_next_to_checkpoint(p) or any(p.is_relative_to(f) for f in own)}
        found = walk.find(self.folders.checkpoints)
        checkpoints = {name: path for name, path in found if not is_vae_next_to_checkpoint(path)}
        return Listing.of(checkpoints, vaes, walk.find_all(self.library_folders()))

    def library_folders(self) -> list[Path]:
        folders = dict.fromkeys((*self.folders.checkpoints, *self.folders.vaes))
        return [folder for folder in folders if is_folder(folder)]

    def vae_folder(self) -> Path:
        # Hosts load a TAESD only from its own folder, and other VAEs not from there.
        folder = next((folder for folder in self.folders.vaes if folder.name != _TAESD), None)
        return folder if folder is not None else super().vae_folder()

    def current_checkpoint(self) -> str:
        names = self.checkpoints()
        return self._choices.checkpoint if self._choices.checkpoint in names else next(iter(names), "")

    def select_checkpoint(self, name: str) -> str:
        """Raises UnknownChoice: no checkpoint has that name."""
        if name not in self.listing(fresh=True).checkpoints:
            raise UnknownChoice(f"no checkpoint named {name}; available: {', '.join(self.checkpoints()) or 'none'}")
        self._choices.checkpoint = name
        why = self._choices.save()
        self.on_checkpoint_changed()
        return f"This is not saved and holds until VAE Lab is closed: {why}." if why else ""

    def standing_choices(self) -> StandingChoices:
        checkpoint = self.current_checkpoint()
        own = self.checkpoint_choices().chosen(checkpoint) if checkpoint else AUTOMATIC
        # With a WebUI, no choice is for every checkpoint: one that was saved earlier could not be taken back.
        return StandingChoices(AUTOMATIC if self.folders.webui else self._choices.always, own)

    def checkpoint_choices(self) -> CheckpointChoices:
        return _PreferencesOfWebui(self, self._choices) if self.folders.webui else _OwnChoices(self._choices)

    def listed_name(self, preferred: str) -> str:
        """Our name of the VAE that a WebUI's preference names."""
        return next((name for name, file in self.vae_files().items() if file.name == preferred), preferred)

    def decision_for(self, choice: Choice) -> Decision:
        why = {
            "generation": "chosen for this comparison",
            "always": "chosen for every checkpoint",
            "checkpoint": f"chosen for {self.current_checkpoint()}",
        }
        return self._decision(choice.vae, choice.source, why[choice.source])

    def host_decision(self) -> Decision:
        return self._decision(BUILT_IN, "host", "no other VAE is chosen")

    def _decision(self, vae: str, source: Source, why: str) -> Decision:
        built_in = vae == BUILT_IN
        path = self.checkpoint_files().get(self.current_checkpoint()) if built_in else self.vae_files().get(vae)
        if path is None or not is_file(path):
            return Decision(vae, source, f"{vae}: {why}, but the file is missing.")
        return Decision(vae, source, f"{vae}: {why}.", str(path))

    def compare(
        self,
        generation_id: str,
        vaes: Sequence[str],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_result: OnResult | None = None,
    ) -> Comparison:
        generation = self.generations.get(generation_id)
        candidates = [self._built_in(generation.family)]
        candidates += [self._candidate(name, generation.family) for name in dict.fromkeys(vaes) if name != BUILT_IN]
        with self._busy:
            return compare_candidates(
                generation.latents, candidates, generation.family,
                progress=progress, cancelled=cancelled, on_result=on_result,
            )  # fmt: skip

    @contextmanager
    def own_place(self) -> Iterator[Place]:
        with self._busy:
            yield Place(self.device)

    def _built_in(self, family: Family) -> Candidate:
        path = self.checkpoint_files().get(self.current_checkpoint())
        return self._candidate_of(BUILT_IN, path, family)

    def _candidate(self, name: str, family: Family) -> Candidate:
        return self._candidate_of(name, self.vae_file(name), family)

    def _candidate_of(self, name: str, path: Path | None, family: Family) -> Candidate:
        record = self.file_cache.known(str(path)) if path else None
        known = (record.family, record.exact_fingerprint) if record else (None, "")
        return Candidate(name, lambda: self._opened(name, path, family), *known)

    @contextmanager
    def _opened(self, name: str, path: Path | None, family: Family) -> Iterator[Decoder]:
        if path is None:
            raise UnknownChoice("there is no checkpoint" if name == BUILT_IN else f"no VAE named {name}")
        record = self.file_cache.identify(str(path))
        if record.problem:
            raise HostError(f"{path}: {record.problem}")
        check_family(name, record.family, family)
        with open_vae(path) as file:
            state = file.state_dict(check_finite=False)  # checked already, see identify
            autoencoder = file.load(family=record.family or family, device=self.device, state=state)
            del state
        yield Decoder.of(autoencoder)

    def use_for_checkpoint(self, vae: str) -> str:
        checkpoint = self.current_checkpoint()
        if not checkpoint:
            raise HostError("there is no checkpoint to choose a VAE for")
        self.check_choice(vae)
        self._choices.per_checkpoint[checkpoint] = vae
        if not self.folders.webui:
            return self._saved()
        path = self.checkpoint_files()[checkpoint]
        try:
            write_preference(str(path), WEBUI_KEY, self.native_name(vae))
        except HostError as error:
            return f"{self._saved()} A WebUI does not learn of this choice: {error}."
        del self._choices.per_checkpoint[checkpoint]
        return f"{self._saved()} Saved in {metadata_file(str(path)).name}, where the WebUI reads it."

    def native_name(self, vae: str) -> str:
        """What the WebUI calls a VAE in a preference.

        Raises:
            HostError: it cannot find or load this one.
        """
        if vae in (AUTOMATIC, BUILT_IN):
            return NO_VAE_FILE if vae == BUILT_IN else AUTOMATIC
        files = self.vae_files()
        name = files[vae].name
        if sum(file.name == name for file in files.values()) > 1:
            raise HostError(f"the WebUI knows VAEs only by file name, and several are called {name}; rename one")
        record = self.file_cache.identify(str(files[vae]))
        if record.architecture and record.architecture != "AutoencoderKL":
            raise HostError(f"the WebUI cannot load {vae} as a checkpoint's VAE: it is a {record.architecture}")
        return name

    def use_always(self, vae: str) -> str:
        self.check_choice(vae)
        self._choices.always = vae
        return self._saved()

    def _saved(self) -> str:
        """Save the choices. Returns what happens now."""
        why, now = self._choices.save(), self.decision().reason
        return f"{now} This is not saved and holds until VAE Lab is closed: {why}." if why else now

    def data_folder(self) -> Path:
        return self.folders.data

"""The AUTOMATIC1111 WebUI (1.8 to 1.10.1) as a host."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from modules import devices, sd_models, sd_vae, shared
from modules.call_queue import queue_lock
from modules.paths_internal import data_path, models_path
from torch import Tensor, float16, float32

from vae_lab.autoencoders import open_vae
from vae_lab.comparison import Candidate, Comparison, compare_candidates
from vae_lab.comparison.compare import OnResult
from vae_lab.decoding import Decoder, check_family
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.host.base import Host, MemoryCheckup, Place
from vae_lab.host.checkpoint_choices import CheckpointChoices
from vae_lab.host.choices import (
    AUTOMATIC,
    BUILT_IN,
    Choice,
    Decision,
    OnBroken,
    Reach,
    Source,
    StandingChoices,
    unknown_vae,
)
from vae_lab.host.guard import guarded
from vae_lab.host.preferences import WEBUI_KEY, read_preference
from vae_lab.identity import fingerprint, short
from vae_lab.latents import Generation, GenerationStore
from vae_lab.latents.family import Family
from vae_lab.library import FileCache, FileRecord, Listing
from vae_lab.library.folders import FileKey, Walk, file_key, is_vae_next_to_checkpoint
from vae_lab.progress import Progress
from vae_lab.webui import preferences
from vae_lab.webui.job import Weights
from vae_lab.webui.loaded_vae import Bench, LoadedVae
from vae_lab.webui.memory_checkup import MemoryCheckups
from vae_lab.webui.own_choice import DECODE_METHOD, OwnChoice, decode_method, settings_come_first
from vae_lab.webui.parts import about_webui, option_paths, part
from vae_lab.webui.weight_swap import check_shapes_fit, converted

__all__ = ["A1111Host"]

_REASONS: dict[Source, str] = {
    "generation": "chosen in the VAE Lab accordion for this generation",
    "always": "Settings > VAE Lab > External VAE",
    "checkpoint": "chosen in VAE Lab for this checkpoint",
}
_CHECKPOINT_FOLDERS = ("ckpt_dir", "ckpt_dirs")  # options of the hosts: one folder, or a list
_VAE_FOLDERS = ("vae_dir", "vae_dirs")


class A1111Host(Host):
    """Reads the WebUI's lists and settings, and decodes with the WebUI's own VAE module."""

    name = "AUTOMATIC1111 WebUI"
    how_to_begin = (
        "Generate an image in txt2img or img2img, then come back: its latent will be here, "
        "and any of your VAEs can decode it again without sampling."
    )

    preference_key = WEBUI_KEY
    """Key in a checkpoint's user metadata for the VAE chosen for it."""
    vae_precision_flag = "--no-half-vae"
    """Command line flag with which the host does not decode in fp16."""

    def __init__(self) -> None:
        self.vae = self._loaded_vae()
        self.generations = GenerationStore(256 * 2**20)
        self.file_cache = FileCache(self.data_folder())
        self._states: OrderedDict[tuple[object, ...], dict[str, Tensor]] = OrderedDict()
        self._memory_checkups = MemoryCheckups(self.vae)
        self._unlisted: set[str] = set()
        self._own_choice = OwnChoice(self._name_of, self.preference_key)
        self._fitting: tuple[FileKey | None, str] | None = None  # VAE and checkpoint that fitted last

    @staticmethod
    def _loaded_vae() -> LoadedVae:
        return LoadedVae()

    def about(self) -> dict[str, str]:
        facts = {**super().about(), **about_webui()}
        with guarded("looking at the VAE in memory"):
            facts |= self.vae.about()
        return facts

    # --- files -----------------------------------------------------------------------------------------------

    def list_files(self) -> Listing:
        """All files that the WebUI would find, with unique names for equal basenames, and TAESD."""
        walk = Walk()
        folders = [Path(sd_vae.vae_path)]
        folders += map(Path, option_paths(*_VAE_FOLDERS))
        checkpoint_folders = [Path(sd_models.model_path)]
        checkpoint_folders += map(Path, option_paths(*_CHECKPOINT_FOLDERS))
        found = {
            name: path
            for name, path in walk.find([*folders, *checkpoint_folders])
            if is_vae_next_to_checkpoint(path) or any(path.is_relative_to(folder) for folder in folders)
        }
        _register_new_checkpoints(path for _, path in walk.find(checkpoint_folders))
        tiny = walk.find([Path(models_path) / "VAE-taesd"])
        found |= {f"VAE-taesd/{name}": path for name, path in tiny if "decoder" in name}
        return Listing.of(self.checkpoint_files(), found, walk.find_all(self.library_folders()))

    def library_folders(self) -> list[Path]:
        """The WebUI's folders and those in its options, if they exist; ``--ckpt`` and ``--vae-path`` name files."""
        named = [
            *(sd_models.model_path, *option_paths(*_CHECKPOINT_FOLDERS, "ckpt")),
            *(sd_vae.vae_path, *option_paths(*_VAE_FOLDERS, "vae_path")),
            os.path.join(models_path, "VAE-taesd"),
        ]
        return [Path(path) for path in dict.fromkeys(named) if path and os.path.exists(path)]

    def vae_folder(self) -> Path:
        """That of the command line options, else the WebUI's own."""
        named = (Path(path) for path in option_paths(*_VAE_FOLDERS))
        return next((folder for folder in named if folder.is_dir()), Path(sd_vae.vae_path))

    def refresh_vaes(self) -> None:
        super().refresh_vaes()
        with guarded("refreshing the list of VAEs"):
            refresh = part("sd_vae.refresh_vae_list")
            if refresh is not None:
                refresh()

    def checkpoint_files(self) -> dict[str, Path]:
        """As currently listed by the WebUI, without reading the disk."""
        return {info.name: Path(info.filename) for info in sd_models.checkpoints_list.values()}

    @property
    def language(self) -> str:
        chosen = getattr(shared.opts, "localization", "None")
        return "" if chosen == "None" else chosen

    @property
    def on_broken(self) -> OnBroken:
        return preferences.on_broken()

    def current_checkpoint(self) -> str:
        model = self.vae.model()
        return model.sd_checkpoint_info.name if model is not None else ""

    def checkpoint_path(self) -> str:
        """File of the current checkpoint, or ""."""
        return self.vae.path()

    def vae_path(self, name: str) -> str:
        """File of the VAE called ``name``.

        Raises:
            UnknownChoice: there is none.
        """
        path = self.vae_file(name) or self._listed(name)
        if path is None:
            raise unknown_vae(name, self.vae_files(), sd_vae.vae_path)
        return str(path)

    def _listed(self, name: str) -> Path | None:
        """As :meth:`vae_file`, without listing the files again."""
        files = self.vae_files()
        # It may have been chosen before a checkpoint got the same name.
        return files.get(name) or files.get(f"{Path(sd_vae.vae_path).name}/{name}")

    # --- who decides -----------------------------------------------------------------------------------------

    def standing_choices(self) -> StandingChoices:
        """The WebUI itself applies what is saved for a checkpoint, so that is part of its own decision."""
        return StandingChoices(preferences.external_vae())

    def standing_choices_when_loaded(self) -> StandingChoices:
        """As :meth:`standing_choices`, for the checkpoint in memory instead of the selected one."""
        return self.standing_choices()

    def decision_for(self, choice: Choice) -> Decision:
        path = self.checkpoint_path() if choice.vae == BUILT_IN else str(self._listed(choice.vae) or "")
        missing = "" if path else " The file is missing."
        return Decision(choice.vae, choice.source, f"{choice.vae}: {_REASONS[choice.source]}.{missing}", path)

    def decision(self, generation_choice: str = AUTOMATIC) -> Decision:
        method = decode_method()
        if method != "Full":
            return Decision(method, "host", f"{method}: {DECODE_METHOD}.")
        return super().decision(generation_choice)

    def own_name(self) -> str:
        """What decodes if VAE Lab changes nothing, human-readable."""
        name = self.host_decision().vae if decode_method() == "Full" else decode_method()
        if name != BUILT_IN:
            return name
        facts = self.file_cache.known(self.checkpoint_path())
        missing = facts is not None and bool(facts.problem)
        return "the VAE that was in memory" if missing else f"{BUILT_IN} of {self.current_checkpoint()}"

    def host_decision(self) -> Decision:
        checkpoint = self.checkpoint_path()
        if not checkpoint:
            return Decision(BUILT_IN, "host", "No checkpoint is loaded yet.")
        return self._own_choice.decision(checkpoint, self.listing())

    def _name_of(self, path: str) -> str:
        """The listed name of a VAE file. Called for every image, so a file is searched for only once."""
        name = self.listing().name_of(path)
        if not name and path not in self._unlisted:
            self._unlisted.add(path)
            name = self.listing(fresh=True).name_of(path)
        return name or os.path.basename(path)

    def chosen(self, reach: Reach) -> str:
        if reach == "always":
            return super().chosen(reach)
        checkpoint = self.checkpoint_path()
        preferred = read_preference(checkpoint, self.preference_key) if checkpoint else AUTOMATIC
        return BUILT_IN if preferred == "None" else self._preferred_name(preferred)

    def _preferred_name(self, preferred: str) -> str:
        """Our name of the VAE that a checkpoint's preference names."""
        file = sd_vae.vae_dict.get(preferred)
        return self._name_of(file) if file else preferred

    def checkpoint_choices(self) -> CheckpointChoices:
        return preferences.NativePreferences(
            self.vae,
            self.vae_path,
            (self.preference_key, self.checkpoint_files, self.vae_files),
            self._preferred_name,
        )

    def before_checkpoint_choices(self) -> str:
        if settings_come_first():
            return "Settings > VAE > SD VAE, or --vae-path, takes precedence over the preferences of checkpoints."
        return super().before_checkpoint_choices()

    def use_for_checkpoint(self, vae: str) -> str:
        checkpoint = self.checkpoint_path()
        if not checkpoint:
            raise HostError("no checkpoint is loaded, so there is none to choose a VAE for")
        self.check_choice(vae)
        self._save_preference(checkpoint, vae)
        now = self.decision()
        if vae in (AUTOMATIC, now.vae):
            return f"Saved for {self.current_checkpoint()}. {now.reason}"
        return f"Saved for {self.current_checkpoint()}, but it has no effect yet. {now.reason}"

    def _save_preference(self, checkpoint: str, vae: str) -> None:
        path = "" if vae in (AUTOMATIC, BUILT_IN) else self.vae_path(vae)
        preferences.save_native_preference(self.vae, checkpoint, self.preference_key, vae, path)

    def check_fits(self, vae: str) -> None:
        path = self.checkpoint_path() if vae == BUILT_IN else str(self._listed(vae) or "")
        if not path:
            if vae not in (AUTOMATIC, BUILT_IN):
                raise unknown_vae(vae, self.vae_files(), sd_vae.vae_path)
            return
        facts = self._usable(vae, path)
        self._check_family(vae, facts)
        self._check_decodes(vae, facts)
        if self.vae.model() is not None and self.vae.path() == self.checkpoint_path() and not self._host_has(vae, path):
            self._check_shapes(path)

    def _check_shapes(self, path: str) -> None:
        """As a swap does, which happens too late for a page that names the VAE."""
        key = (file_key(path), self.vae.path())
        if key != self._fitting:
            with open_vae(path) as file:
                check_shapes_fit(self.vae.module(), file.shapes, path)
            self._fitting = key

    @staticmethod
    def _check_decodes(vae: str, facts: FileRecord) -> None:
        if facts.architecture != "AutoencoderKL":
            raise HostError(f"{vae} is a {facts.architecture}: choose it in {DECODE_METHOD}")

    def use_always(self, vae: str) -> str:
        self.check_choice(vae)
        preferences.save_external_vae(vae)
        return self.decision().reason

    # --- the checkup -----------------------------------------------------------------------------------------

    def checkpoint_family(self) -> Family | None:
        return self.vae.family() or super().checkpoint_family()

    def preferred_vaes(self) -> dict[str, str]:
        files = self.vae_files()
        preferred = dict.fromkeys(preferences.preferred_vaes(), "Settings > VAE Lab > Preferred VAEs")
        preferred.setdefault(preferences.external_vae(), "Settings > VAE Lab > External VAE")
        for name, path in files.items():
            if path.name == getattr(shared.opts, "sd_vae", ""):
                preferred.setdefault(name, "Settings > VAE > SD VAE")
        return {name: where for name, where in preferred.items() if name in files}

    def used_instead(self) -> str:
        decision = self.decision()
        if decision.vae != BUILT_IN:
            return decision.reason
        if self.vae.model() is None:
            return decision.reason
        state = self.vae.tensors()
        if not any(bool(value.any()) for value in state.values()):
            return "There is no VAE in memory: every image comes out grey."
        digest = fingerprint(state)
        files = {**self.vae_files(), **self.checkpoint_files()}
        known = {name: self.file_cache.known(str(path)) for name, path in files.items()}
        owner = next((name for name, facts in known.items() if facts and facts.fingerprint == digest), "")
        origin = f"that of {owner}" if owner else "of unknown origin"
        return f"The WebUI keeps using the VAE that was in memory before: {origin}."

    def memory_checkup(self) -> MemoryCheckup | None:
        return self._memory_checkups.latest(self.checkpoint_path())

    def check_own_memory(self) -> None:
        """Check the VAE that the host has chosen itself, after waiting for the host's queue."""
        self.wait_until_loaded()
        with queue_lock:
            self.check_memory(self.host_decision().vae)

    def wait_until_loaded(self) -> None:
        # The WebUI loads its first checkpoint outside the queue, and reports it before the model is ready.
        with getattr(sd_models.model_data, "lock", nullcontext()):
            pass

    def check_memory(self, name: str, *, own: bool = True) -> MemoryCheckup | None:
        """See :meth:`MemoryCheckups.check`."""
        return self._memory_checkups.check(name, own=own)

    # --- weights ---------------------------------------------------------------------------------------------

    def weights(self, choice: str) -> Weights:
        """The weights that ``choice`` means for the loaded checkpoint.

        Raises:
            VaeLabError: they cannot be used, with the reason.
        """
        path = self.vae.path() if choice == BUILT_IN else self.vae_path(choice)
        facts = self._usable(choice, path)
        family = self.vae.family()
        if family is not None:
            check_family(choice, facts.family, family)
        self._check_decodes(choice, facts)
        return Weights(
            name=choice,
            path=path,
            digest=short(facts.fingerprint),
            loaded=self._host_has(choice, path),
            load=lambda: self._state(path),
        )

    def _usable(self, name: str, path: str) -> FileRecord:
        facts = self.file_cache.identify(path)
        if facts.problem:
            raise HostError(f"{name}: {facts.problem}")
        return facts

    @staticmethod
    def _host_has(choice: str, path: str) -> bool:
        """Whether the WebUI has loaded this very file. For the built-in VAE only the file counts, never the memory."""
        loaded = sd_vae.loaded_vae_file
        return choice != BUILT_IN and loaded is not None and os.path.abspath(loaded) == os.path.abspath(path)

    def _state(self, path: str) -> dict[str, Tensor]:
        """Weights of a file, converted for the module in memory; the last ones stay, 160 to 330 MB each."""
        key = (file_key(path), path, self.vae.precision())
        if not self._states.get(key):  # or emptied: see VaeSwap.put
            with open_vae(path) as file:
                state = file.state_dict(check_finite=False)  # checked already, see _usable
            self._states[key] = converted(self.vae.module(), state)
        self._states.move_to_end(key)
        while len(self._states) > _kept_states():
            self._states.popitem(last=False)
        return self._states[key]

    # --- comparison ------------------------------------------------------------------------------------------

    def compare(
        self,
        generation_id: str,
        vaes: Sequence[str],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_result: OnResult | None = None,
    ) -> Comparison:
        generation = self.generations.get(generation_id)
        with queue_lock:
            return self.compare_in_job(generation, vaes, progress, cancelled, on_result)

    def compare_in_job(
        self,
        generation: Generation,
        vaes: Sequence[str],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_result: OnResult | None = None,
    ) -> Comparison:
        """As :meth:`compare`, for callers that already hold the host's queue, as every script hook does."""
        names = [BUILT_IN, *(name for name in dict.fromkeys(vaes) if name != BUILT_IN)]
        with ExitStack() as undo:
            bench = Bench(self.vae, generation, undo) if self._same_kind(generation) else None
            candidates = [self._candidate(name, generation, bench) for name in names]
            return compare_candidates(
                generation.latents, candidates, generation.family,
                progress=progress, cancelled=cancelled, on_result=on_result,
            )  # fmt: skip

    def built_in_of(self, generation: Generation) -> str:
        path = generation.checkpoint
        names = {os.path.abspath(file): name for name, file in self.checkpoint_files().items()}
        return names.get(os.path.abspath(path), os.path.basename(path)) if path else super().built_in_of(generation)

    def _path(self, name: str, generation: Generation) -> str:
        """File of a VAE, or ""; for the built-in one, the checkpoint that sampled the latents, else the current one."""
        if name == BUILT_IN:
            return generation.checkpoint or self.checkpoint_path()
        return str(self.vae_file(name) or "")

    @contextmanager
    def own_place(self) -> Iterator[Place]:
        with queue_lock, self.place_in_job() as place:
            yield place

    @contextmanager
    def place_in_job(self) -> Iterator[Place]:
        # Half precision overflows in some VAEs, and the WebUI then switches to another one.
        precision = float32 if devices.dtype_vae == float16 else devices.dtype_vae
        try:
            with devices.without_autocast():
                yield Place(devices.device, precision)
        finally:
            devices.torch_gc()

    def _same_kind(self, generation: Generation) -> bool:
        family = self.vae.family()
        return family is not None and family.id == generation.family.id

    def _candidate(self, name: str, generation: Generation, bench: Bench | None) -> Candidate:
        path = self._path(name, generation)
        facts = self.file_cache.known(path) if path else None
        known = (facts.family, facts.exact_fingerprint) if facts else (None, "")
        return Candidate(name, lambda: self._opened(name, path, generation, bench), *known)

    @contextmanager
    def _opened(self, name: str, path: str, generation: Generation, bench: Bench | None) -> Iterator[Decoder]:
        if not path or not os.path.isfile(path):
            raise UnknownChoice(f"{name}: the file is missing{f' ({path})' if path else ''}")
        facts = self._usable(name, path)
        check_family(name, facts.family, generation.family)
        if bench is not None and facts.architecture == "AutoencoderKL":
            with bench.with_weights(self._state(path), path) as decoder:
                yield decoder
            return
        with open_vae(path) as file:
            own = file.load(family=facts.family or generation.family, device=devices.cpu)
        yield Decoder.of(own)

    def digest(self, name: str, generation: Generation) -> str:
        path = self._path(name, generation)
        facts = self.file_cache.known(path) if path else None
        return short(facts.fingerprint) if facts else ""

    def data_folder(self) -> Path:
        return Path(data_path) / "cache" / "vae-lab"


def _kept_states() -> int:
    """How many VAEs may stay in memory: as many as the WebUI may keep itself, at least the one used last."""
    return max(int(getattr(shared.opts, "sd_vae_checkpoint_cache", 0) or 0), 1)


def _register_new_checkpoints(files: Iterable[Path]) -> None:
    """Tell the WebUI of checkpoints that have arrived since it listed them, as its own Refresh does."""
    known = {os.path.abspath(info.filename) for info in sd_models.checkpoints_list.values()}
    for path in files:
        if path.suffix in (".ckpt", ".safetensors") and not is_vae_next_to_checkpoint(path):
            with guarded("listing a new checkpoint"):
                if os.path.abspath(path) not in known:
                    sd_models.CheckpointInfo(str(path)).register()

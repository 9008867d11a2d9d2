"""The AUTOMATIC1111 WebUI (1.8 to 1.10.1) as a host."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from modules import devices, sd_models, sd_vae, shared
from modules.call_queue import queue_lock
from modules.paths_internal import data_path, models_path
from torch import Tensor, float16, float32

from vae_lab.autoencoders import open_vae
from vae_lab.checkup import Checkup, check_decoder, identity_key
from vae_lab.comparison import Candidate, Comparison, compare_candidates
from vae_lab.decoding import Decoder, check_family
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.formats import WeightFile
from vae_lab.host.base import AUTOMATIC, BUILT_IN, Decision, Held, Host, Place, Progress
from vae_lab.host.guard import guarded
from vae_lab.identity import fingerprint, memory_digest, short
from vae_lab.latents import Generation, GenerationStore
from vae_lab.latents.family import Family
from vae_lab.library import FileCache, FileRecord, Listing
from vae_lab.library.folders import Walk, is_vae_beside_checkpoint
from vae_lab.webui.job import Weights
from vae_lab.webui.loaded_vae import Bench, HeldVae
from vae_lab.webui.weight_swap import check_shapes_fit

__all__ = ["EXTERNAL_OPTION", "KEEP_OPTION", "ON_GREY_OPTION", "PREFERRED_OPTION", "A1111Host", "metadata_file"]

EXTERNAL_OPTION = "vae_lab_external"
KEEP_OPTION = "vae_lab_keep_mb"
ON_GREY_OPTION = "vae_lab_on_grey"
PREFERRED_OPTION = "vae_lab_preferred"
_KEPT_STATES = 1  # the override's weights stay in memory between generations; 160 to 330 MB each


class A1111Host(Host):
    """Reads the WebUI's lists and settings, and decodes with the WebUI's own VAE module."""

    name = "AUTOMATIC1111 WebUI"
    how_to_begin = (
        "Generate an image in txt2img or img2img, then come back: its latent will be here, "
        "and any of your VAEs can decode it again without sampling."
    )

    preference_key = "vae"
    """Of a checkpoint's user metadata: the VAE that was chosen for it."""

    def __init__(self) -> None:
        self.vae = self._held_vae()
        self.generations = GenerationStore(256 * 2**20)
        self.facts = FileCache(self.data_folder())
        self._states: OrderedDict[tuple[str, float], dict[str, Tensor]] = OrderedDict()
        self._memory: dict[str, tuple[Checkup, str]] = {}
        self._held: Held | None = None
        self._unlisted: set[str] = set()

    @staticmethod
    def _held_vae() -> HeldVae:
        return HeldVae()

    # --- what there is ---------------------------------------------------------------------------------------

    def list_files(self) -> Listing:
        """All that the WebUI itself would find, with same basenames in different folders told apart, and TAESD."""
        walk = Walk()
        folders = [Path(sd_vae.vae_path)]
        folders += [Path(folder) for folder in (shared.cmd_opts.vae_dir,) if folder]
        beside = [Path(sd_models.model_path)]
        beside += [Path(folder) for folder in (shared.cmd_opts.ckpt_dir,) if folder]
        found = {
            name: path
            for name, path in walk.find([*folders, *beside])
            if is_vae_beside_checkpoint(path) or any(path.is_relative_to(folder) for folder in folders)
        }
        tiny = walk.find([Path(models_path) / "VAE-taesd"])
        found |= {f"VAE-taesd/{name}": path for name, path in tiny if "decoder" in name}
        return Listing.of(self.checkpoint_files(), found, walk.find_all(self.library_folders()))

    def library_folders(self) -> list[Path]:
        """Of the WebUI's folders and options, those that are there; ``--ckpt`` and ``--vae-path`` name files."""
        options = shared.cmd_opts
        named = [
            *(sd_models.model_path, options.ckpt_dir, options.ckpt),
            *(sd_vae.vae_path, options.vae_dir, getattr(options, "vae_path", None)),
            os.path.join(models_path, "VAE-taesd"),
        ]
        return [Path(path) for path in dict.fromkeys(named) if path and os.path.exists(path)]

    def checkpoint_files(self) -> dict[str, Path]:
        """As the WebUI lists them at this moment, without a look at the disk."""
        return {info.name: Path(info.filename) for info in sd_models.checkpoints_list.values()}

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
        files: Mapping[str, Path] = {}
        for fresh in (False, True):  # it may have come since the files were listed
            files = self.listing(fresh=fresh).vaes
            # It may have been chosen before a checkpoint of the same name came.
            path = files.get(name) or files.get(f"{Path(sd_vae.vae_path).name}/{name}")
            if path is not None:
                return str(path)
        raise UnknownChoice(f"no VAE named {name}; looked in {sd_vae.vae_path}, found {', '.join(files) or 'none'}")

    # --- who decides -----------------------------------------------------------------------------------------

    def decision(self, generation_choice: str = AUTOMATIC) -> Decision:
        if generation_choice != AUTOMATIC:
            return self._decided(generation_choice, "generation", "chosen in the VAE Lab accordion for this generation")
        always = self.always()
        if always != AUTOMATIC:
            return self._decided(always, "always", "Settings > VAE Lab > External VAE")
        return self.host_decision()

    @staticmethod
    def always() -> str:
        """What the settings choose for every checkpoint, or ``Automatic``."""
        return getattr(shared.opts, EXTERNAL_OPTION, AUTOMATIC)

    def standing_choice(self) -> str:
        """What VAE Lab is to put in where a generation asks for nothing, or ``Automatic``."""
        return self.always()

    def _decided(self, vae: str, source: str, why: str) -> Decision:
        path = self.checkpoint_path() if vae == BUILT_IN else self._existing(vae)
        missing = "" if path else " The file is not there: the WebUI's own choice decodes instead."
        return Decision(vae, source, f"{vae} decodes: {why}.{missing}", path)

    def _existing(self, vae: str) -> str:
        """File of an external VAE, or "" if it is not there."""
        path = self.vae_files().get(vae)
        return str(path) if path is not None and path.is_file() else ""

    def host_decision(self) -> Decision:
        """Which VAE the WebUI itself has chosen, without VAE Lab."""
        checkpoint = self.checkpoint_path()
        if not checkpoint:
            return Decision(BUILT_IN, "host", "No checkpoint is loaded yet.")
        resolved = sd_vae.resolve_vae(checkpoint)
        if resolved.source == "from user metadata":
            source, why = "checkpoint", "the checkpoint's own preference (its card > edit metadata > Preferred VAE)"
        elif resolved.source == "specified in settings":
            source, why = "host", "Settings > VAE > SD VAE"
        elif resolved.vae:
            source, why = "host", f"the WebUI, {resolved.source}"
        elif self.chosen("checkpoint") == BUILT_IN and not self._settings_come_first():
            source, why = "checkpoint", "the checkpoint's own preference (its card > edit metadata > Preferred VAE)"
        else:
            source, why = "host", "no external VAE is chosen"
        name = self._name_of(resolved.vae) if resolved.vae else BUILT_IN
        return Decision(name, source, f"{name} decodes: {why}.", resolved.vae or checkpoint)

    def _name_of(self, path: str) -> str:
        """How the VAE in a file is listed. Called for every image, so a file is searched for only once."""
        name = self.listing().name_of(path)
        if not name and path not in self._unlisted:
            self._unlisted.add(path)
            name = self.listing(fresh=True).name_of(path)
        return name or os.path.basename(path)

    @staticmethod
    def _settings_come_first() -> bool:
        """Whether the WebUI goes by its settings, whatever a checkpoint prefers."""
        return shared.cmd_opts.vae_path is not None or (
            shared.opts.sd_vae_overrides_per_model_preferences and not sd_vae.is_automatic()
        )

    def chosen(self, reach: str) -> str:
        if reach == "always":
            return self.always()
        checkpoint = self.checkpoint_path()
        preferred = self._read_preference(checkpoint) if checkpoint else AUTOMATIC
        if preferred == "None":
            return BUILT_IN
        file = sd_vae.vae_dict.get(preferred)
        return self._name_of(file) if file else preferred

    def use_for_checkpoint(self, vae: str) -> str:
        checkpoint = self.checkpoint_path()
        if not checkpoint:
            raise HostError("no checkpoint is loaded, so there is none to choose a VAE for")
        self.check_choice(vae)
        self._save_preference(checkpoint, vae)
        now = self.decision()
        if vae in (AUTOMATIC, now.vae):
            return f"Saved for {self.current_checkpoint()}. {now.reason}"
        return f"Saved for {self.current_checkpoint()}, but without effect for now: {now.reason}"

    def _save_preference(self, checkpoint: str, vae: str) -> None:
        with queue_lock:
            host_name = self._host_name_of(vae)
            if vae not in (AUTOMATIC, BUILT_IN):
                self._check_host_loads(self.vae_path(vae), vae)
            before = self._read_preference(checkpoint)
            self._write_preference(checkpoint, host_name)
            try:
                if sd_models.model_data.sd_model is not None:
                    sd_vae.reload_vae_weights(sd_models.model_data.sd_model)
            except Exception as error:  # the host boundary: it loads the file its own way
                try:
                    self._write_preference(checkpoint, before)
                finally:
                    self._load_checkpoint_again()
                raise HostError(f"the WebUI could not load {vae}, so it was not chosen: {error}") from error

    @staticmethod
    def _load_checkpoint_again() -> None:
        """After a failed load the WebUI leaves its VAE a mixture, its model off the device and without its hooks."""
        with guarded("loading the checkpoint again"):
            model = sd_models.model_data.sd_model
            sd_vae.restore_base_vae(model)  # where the checkpoint has none of its own
            sd_models.reload_model_weights(info=model.sd_checkpoint_info, forced_reload=True)

    def _host_name_of(self, vae: str) -> str:
        """What the WebUI's own preference calls it."""
        if vae == AUTOMATIC:
            return "Automatic"
        if vae == BUILT_IN:
            return "None"
        path = self.vae_path(vae)
        sd_vae.refresh_vae_list()
        basename = os.path.basename(path)
        found = sd_vae.vae_dict.get(basename)
        if found is None:
            raise HostError(f"the WebUI does not list {basename} as a VAE, so it cannot be a checkpoint's preference")
        if os.path.abspath(found) != os.path.abspath(path):
            raise HostError(f"the WebUI knows VAEs by file name alone, and takes {basename} for {found}; rename one")
        return basename

    def _check_host_loads(self, vae_path: str, vae: str) -> None:
        """Refuse what the WebUI itself cannot load: it copies what fits, and then fails with a mixture in its module.

        Raises:
            VaeLabError: names or shapes are others than those of the loaded checkpoint's VAE.
        """
        if self.vae.model() is None:
            return
        with open_vae(vae_path) as file:
            check_shapes_fit(self.vae.module(), file.shapes, vae_path)
            if _as_host_reads(file.weights) != set(file.shapes):
                raise HostError(
                    f"{vae} has a layout that the WebUI itself cannot load ({file.layout.label}); "
                    "VAE Lab can: choose it in the accordion, or with Use always"
                )

    def _read_preference(self, checkpoint: str) -> str:
        try:
            metadata = json.loads(metadata_file(checkpoint).read_text(encoding="utf8"))
        except (OSError, ValueError):
            return AUTOMATIC
        chosen = metadata.get(self.preference_key) if isinstance(metadata, dict) else None
        return chosen if isinstance(chosen, str) and chosen else AUTOMATIC

    def _write_preference(self, checkpoint: str, vae: str) -> None:
        """Other tools keep their own keys in this file, so all but one stay as they are."""
        file = metadata_file(checkpoint)
        try:
            metadata = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
            if not isinstance(metadata, dict):
                raise HostError(f"{file} is not a JSON object; the preference was not written")
            metadata[self.preference_key] = vae
            unfinished = file.with_name(file.name + ".tmp")
            unfinished.write_text(json.dumps(metadata, indent=4, ensure_ascii=False), encoding="utf8")
            unfinished.replace(file)
        except (OSError, ValueError) as error:
            raise HostError(f"the preference could not be written to {file}: {error}") from error

    def check_choice(self, vae: str) -> None:
        path = "" if vae in (AUTOMATIC, BUILT_IN) else self.vae_path(vae)  # raises with the folder that was looked in
        super().check_choice(vae)
        if path:
            self._check_decodes(vae, self.facts.identify(path))

    @staticmethod
    def _check_decodes(vae: str, facts: FileRecord) -> None:
        if facts.architecture != "AutoencoderKL":
            raise HostError(f"{vae} is a {facts.architecture}: choose it in Settings > VAE > VAE type for decode")

    def use_always(self, vae: str) -> str:
        self.check_choice(vae)
        before = self.always()
        try:
            shared.opts.set(EXTERNAL_OPTION, vae)
            shared.opts.save(shared.config_filename)
        except (AssertionError, OSError) as error:  # the former under --freeze-settings
            shared.opts.data[EXTERNAL_OPTION] = before
            raise HostError(f"the WebUI does not save this setting: {error or 'its settings are frozen'}") from error
        return self.decision().reason

    # --- the checkup -----------------------------------------------------------------------------------------

    def checkpoint_family(self) -> Family | None:
        return self.vae.family() or super().checkpoint_family()

    def preferred_vaes(self) -> dict[str, str]:
        files = self.vae_files()
        preferred = dict.fromkeys(
            getattr(shared.opts, PREFERRED_OPTION, None) or (), "Settings > VAE Lab > Preferred VAEs"
        )
        external = getattr(shared.opts, EXTERNAL_OPTION, AUTOMATIC)
        preferred.setdefault(external, "Settings > VAE Lab > External VAE")
        for name, path in files.items():
            if path.name == shared.opts.sd_vae:
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
            return "No VAE is in memory at all: every image comes out grey."
        digest = fingerprint(state)
        files = {**self.vae_files(), **self.checkpoint_files()}
        named = {name: self.facts.known(str(path)) for name, path in files.items()}
        whose = next((name for name, facts in named.items() if facts and facts.fingerprint == digest), "")
        origin = f"that of {whose}" if whose else "of unknown origin"
        return f"The WebUI goes on with the VAE that was in memory before: {origin}."

    def held(self) -> Held | None:
        # Another checkpoint may be in memory by now, of those that the WebUI keeps, or be chosen, in Forge.
        still = self._held is not None and self._held.checkpoint == self.vae.path() == self.checkpoint_path()
        return self._held if still else None

    def look_at_own_memory(self) -> None:
        """As :meth:`look_at_memory`, of the host's own choice, waiting for the host's queue."""
        # The WebUI loads its first checkpoint beside the queue, and tells us before it has done with the model.
        with getattr(sd_models.model_data, "lock", nullcontext()):
            pass
        with queue_lock:
            self.look_at_memory(self.host_decision().vae)

    def look_at_memory(self, name: str, *, own: bool = True) -> Held | None:
        """Check up on the VAE in the WebUI's memory, in the precision that it uses, once for each set of weights.

        To be called by who holds the host's queue.

        Args:
            name: what the VAE is called, see :class:`Held`.
            own: whether it is the host's own choice, to be shown as :meth:`held`.
        """
        family = self.vae.family()
        if family is None:
            return None
        key = identity_key(f"memory:{memory_digest(self.vae.tensors())}", family, str(devices.dtype_vae))
        looked = self._memory.get(key) or self._look_at_decoder(family)
        if looked is None:
            return None
        self._memory[key] = looked
        held = Held(*looked, name, self.vae.path())
        if own:
            self._held = held
        return held

    def _look_at_decoder(self, family: Family) -> tuple[Checkup, str] | None:
        """What the chart looks like by the VAE in memory, and in which precision that was decoded in the end."""
        used = devices.dtype_vae

        def decode(latent: Tensor) -> Tensor:
            nonlocal used
            image, used = self.vae.decode_in(latent)
            return image

        checkup = check_decoder(decode, family)
        return (checkup, str(used).removeprefix("torch.")) if checkup else None

    # --- weights ---------------------------------------------------------------------------------------------

    def weights(self, choice: str) -> Weights:
        """The weights that ``choice`` stands for with the loaded checkpoint, of its family.

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
            held=self._host_has(choice, path),
            load=lambda: self._state(path),
        )

    def _usable(self, name: str, path: str) -> FileRecord:
        facts = self.facts.identify(path)
        if facts.problem:
            raise HostError(f"{name}: {facts.problem}")
        return facts

    @staticmethod
    def _host_has(choice: str, path: str) -> bool:
        """Whether the WebUI has loaded this very file. Of the built-in VAE only the file is proof, never the memory."""
        loaded = sd_vae.loaded_vae_file
        return choice != BUILT_IN and loaded is not None and os.path.abspath(loaded) == os.path.abspath(path)

    def _state(self, path: str) -> dict[str, Tensor]:
        key = (path, os.path.getmtime(path))
        if key not in self._states:
            with open_vae(path) as file:
                self._states[key] = file.state_dict(check_finite=False)  # looked at already, see _usable
            while len(self._states) > _KEPT_STATES:
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        return self._states[key]

    # --- comparison ------------------------------------------------------------------------------------------

    def compare(
        self,
        generation_id: str,
        vaes: Sequence[str],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Comparison:
        generation = self.generations.get(generation_id)
        with queue_lock:
            return self.compare_unlocked(generation, vaes, progress, cancelled)

    def compare_unlocked(
        self,
        generation: Generation,
        vaes: Sequence[str],
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Comparison:
        """As :meth:`compare`, for callers that hold the host's queue already, as every script hook does."""
        names = [BUILT_IN, *(name for name in dict.fromkeys(vaes) if name != BUILT_IN)]
        with ExitStack() as undo:
            bench = Bench(self.vae, generation, undo) if self._same_kind(generation) else None
            candidates = [self._candidate(name, generation, bench) for name in names]
            return compare_candidates(
                generation.latents, candidates, generation.family, progress=progress, cancelled=cancelled
            )

    def built_in_of(self, generation: Generation) -> str:
        path = generation.checkpoint
        names = {os.path.abspath(file): name for name, file in self.checkpoint_files().items()}
        return names.get(os.path.abspath(path), os.path.basename(path)) if path else super().built_in_of(generation)

    def _path(self, name: str, generation: Generation) -> str:
        """File of a VAE, or ""; of the built-in one, that of the checkpoint that sampled, or else of the loaded one."""
        if name == BUILT_IN:
            return generation.checkpoint or self.checkpoint_path()
        return str(self.vae_files().get(name, ""))

    @contextmanager
    def own_place(self) -> Iterator[Place]:
        with queue_lock:
            # Half precision overflows in some VAEs, and the WebUI then goes on in another one.
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
        facts = self.facts.known(path) if path else None
        return Candidate(name, lambda: self._opened(name, path, generation, bench), facts.family if facts else None)

    @contextmanager
    def _opened(self, name: str, path: str, generation: Generation, bench: Bench | None) -> Iterator[Decoder]:
        if not path or not os.path.isfile(path):
            raise UnknownChoice(f"{name}: the file is not there{f' ({path})' if path else ''}")
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
        facts = self.facts.known(path) if path else None
        return short(facts.fingerprint) if facts else ""

    def data_folder(self) -> Path:
        return Path(data_path) / "cache" / "vae-lab"


def _as_host_reads(weights: WeightFile) -> set[str]:
    """The names that ``sd_vae.load_vae_dict`` finds in a file."""
    names, wrapped = list(weights.tensors), "state_dict."
    if weights.container != "safetensors" and any(name.startswith(wrapped) for name in names):
        names = [name.removeprefix(wrapped) for name in names if name.startswith(wrapped)]
    return {name for name in names if name[:4] != "loss" and name not in sd_vae.vae_ignore_keys}


def metadata_file(checkpoint: str) -> Path:
    """Where the host keeps what the user has noted about a checkpoint."""
    return Path(os.path.splitext(checkpoint)[0] + ".json")

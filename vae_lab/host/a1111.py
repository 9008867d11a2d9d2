"""The AUTOMATIC1111 WebUI (1.8 to 1.10.1) as a host."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modules import devices, sd_models, sd_vae, shared
from modules.call_queue import queue_lock
from modules.paths_internal import data_path, models_path
from torch import Tensor, float16, float32

from vae_lab.autoencoders import open_vae
from vae_lab.checkup import Checkup, check_decoder, identity_key
from vae_lab.comparison import Candidate, Comparison, compare_candidates
from vae_lab.comparison.compare import Decoder, check_family
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.families import FAMILIES, Family
from vae_lab.host.a1111_vae import Bench, decode_as_host, vae_tensors
from vae_lab.host.base import AUTOMATIC, BUILT_IN, Decision, Held, Host, Place, Progress
from vae_lab.host.job import Weights
from vae_lab.identity import fingerprint, memory_digest, short
from vae_lab.latents import Generation, GenerationStore
from vae_lab.library import FactsCache, VaeFacts, find_weight_files, is_vae_beside_checkpoint

__all__ = ["EXTERNAL_OPTION", "KEEP_OPTION", "ON_GREY_OPTION", "PREFERRED_OPTION", "A1111Host"]

EXTERNAL_OPTION = "vae_lab_external"
KEEP_OPTION = "vae_lab_keep_mb"
ON_GREY_OPTION = "vae_lab_on_grey"
PREFERRED_OPTION = "vae_lab_preferred"
_KEPT_STATES = 1  # the override's weights stay in memory between generations; 160 to 330 MB each


class A1111Host(Host):
    """Reads the WebUI's lists and settings, and decodes with the WebUI's own VAE module."""

    name = "AUTOMATIC1111 WebUI"
    how_to_begin = (
        "Generate a picture in txt2img or img2img, then come back: its latent will be here, "
        "and any of your VAEs can decode it again without sampling."
    )

    def __init__(self) -> None:
        self.generations = GenerationStore(256 * 2**20)
        self.facts = FactsCache(self.data_folder() / "facts")
        self._states: OrderedDict[tuple[str, float], dict[str, Tensor]] = OrderedDict()
        self._memory: dict[str, Checkup] = {}
        self._held: Held | None = None

    # --- what there is ---------------------------------------------------------------------------------------

    def vae_files(self) -> dict[str, Path]:
        """All that the WebUI itself would find, with same basenames in different folders kept apart, and TAESD."""
        folders = [Path(sd_vae.vae_path)]
        folders += [Path(folder) for folder in (shared.cmd_opts.vae_dir,) if folder]
        beside = [Path(sd_models.model_path)]
        beside += [Path(folder) for folder in (shared.cmd_opts.ckpt_dir,) if folder]
        found = dict(find_weight_files(folders))
        found |= {name: path for name, path in find_weight_files(beside) if is_vae_beside_checkpoint(path)}
        found |= {
            f"VAE-taesd/{name}": path
            for name, path in find_weight_files([Path(models_path) / "VAE-taesd"])
            if "decoder" in name
        }
        return found

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
        return {info.name: Path(info.filename) for info in sd_models.checkpoints_list.values()}

    def current_checkpoint(self) -> str:
        model = sd_models.model_data.sd_model
        return model.sd_checkpoint_info.name if model is not None else ""

    def checkpoint_path(self) -> str:
        """File of the loaded checkpoint, or ""."""
        model = sd_models.model_data.sd_model
        return model.sd_checkpoint_info.filename if model is not None else ""

    def vae_path(self, name: str) -> str:
        """File of the VAE called ``name``.

        Raises:
            UnknownChoice: there is none.
        """
        files = self.vae_files()
        if name not in files:
            raise UnknownChoice(f"no VAE named {name}; looked in {sd_vae.vae_path}, found {', '.join(files) or 'none'}")
        return str(files[name])

    # --- who decides -----------------------------------------------------------------------------------------

    def decision(self, generation_choice: str = AUTOMATIC) -> Decision:
        if generation_choice != AUTOMATIC:
            return self._decided(generation_choice, "generation", "chosen in the VAE Lab accordion for this generation")
        always = getattr(shared.opts, EXTERNAL_OPTION, AUTOMATIC)
        if always != AUTOMATIC:
            return self._decided(always, "always", "Settings > VAE Lab > External VAE")
        return self.host_decision()

    def _decided(self, vae: str, source: str, why: str) -> Decision:
        path = self.checkpoint_path() if vae == BUILT_IN else str(self.vae_files().get(vae, ""))
        missing = "" if path else " The file is not there: the WebUI's own choice decodes instead."
        return Decision(vae, source, f"{vae} decodes: {why}.{missing}", path)

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
        else:
            source, why = "host", "no external VAE is chosen"
        name = os.path.basename(resolved.vae) if resolved.vae else BUILT_IN
        return Decision(name, source, f"{name} decodes: {why}.", resolved.vae or checkpoint)

    def use_for_checkpoint(self, vae: str) -> str:
        checkpoint = self.checkpoint_path()
        if not checkpoint:
            raise HostError("no checkpoint is loaded, so there is none to choose a VAE for")
        with queue_lock:
            self._write_preference(checkpoint, self._host_name_of(vae))
            if sd_models.model_data.sd_model is not None:
                sd_vae.reload_vae_weights(sd_models.model_data.sd_model)
        wanted = AUTOMATIC if vae == AUTOMATIC else (vae if vae == BUILT_IN else os.path.basename(self.vae_path(vae)))
        now = self.decision()
        if wanted in (AUTOMATIC, now.vae):
            return f"Saved for {self.current_checkpoint()}. {now.reason}"
        return f"Saved for {self.current_checkpoint()}, but without effect for now: {now.reason}"

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

    @staticmethod
    def _write_preference(checkpoint: str, vae: str) -> None:
        """Other tools keep their own keys in this file, so all but one stay as they are."""
        file = Path(os.path.splitext(checkpoint)[0] + ".json")
        try:
            metadata = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
            if not isinstance(metadata, dict):
                raise HostError(f"{file} is not a JSON object; the preference was not written")
            metadata["vae"] = vae
            unfinished = file.with_name(file.name + ".tmp")
            unfinished.write_text(json.dumps(metadata, indent=4, ensure_ascii=False), encoding="utf8")
            unfinished.replace(file)
        except (OSError, ValueError) as error:
            raise HostError(f"the preference could not be written to {file}: {error}") from error

    def use_always(self, vae: str) -> str:
        if vae not in (AUTOMATIC, BUILT_IN):
            self.vae_path(vae)
        shared.opts.set(EXTERNAL_OPTION, vae)
        shared.opts.save(shared.config_filename)
        return self.decision().reason

    # --- the checkup -----------------------------------------------------------------------------------------

    def checkpoint_family(self) -> Family | None:
        return self.model_family() or super().checkpoint_family()

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
        model = sd_models.model_data.sd_model
        if model is None:
            return decision.reason
        state = vae_tensors(model)
        if not any(bool(value.any()) for value in state.values()):
            return "No VAE is in memory at all: every picture comes out grey."
        digest = fingerprint(state)
        files = {**self.vae_files(), **self.checkpoint_files()}
        named = {name: self.facts.known(str(path)) for name, path in files.items()}
        whose = next((name for name, facts in named.items() if facts and facts.fingerprint == digest), "")
        origin = f"that of {whose}" if whose else "of unknown origin"
        return f"The WebUI goes on with the VAE that was in memory before: {origin}."

    def held(self) -> Held | None:
        return self._held

    def look_at_own_memory(self) -> None:
        """As :meth:`look_at_memory`, of the host's own choice, waiting for the host's queue."""
        with queue_lock:
            self.look_at_memory(self.host_decision().vae)

    def look_at_memory(self, name: str, *, own: bool = True) -> Held | None:
        """Check up on the VAE in the WebUI's memory, in the precision that it uses, once for each set of weights.

        To be called by who holds the host's queue.

        Args:
            name: what the VAE is called, see :class:`Held`.
            own: whether it is the host's own choice, to be shown as :meth:`held`.
        """
        model = sd_models.model_data.sd_model
        family = self.model_family()
        if model is None or family is None:
            return None
        precision = str(devices.dtype_vae).removeprefix("torch.")
        key = identity_key(f"memory:{memory_digest(vae_tensors(model))}", family, precision)
        checkup = self._memory.get(key)
        if checkup is None:
            checkup = check_decoder(lambda latent: decode_as_host(model, latent), family)
            if checkup is None:
                return None
            self._memory[key] = checkup
        held = Held(checkup, precision, name)
        if own:
            self._held = held
        return held

    # --- weights ---------------------------------------------------------------------------------------------

    @staticmethod
    def model_family() -> Family | None:
        """Latent family of the loaded checkpoint."""
        model = sd_models.model_data.sd_model
        if model is None:
            return None
        if getattr(model, "is_sdxl", False):
            return FAMILIES["sdxl"]
        return FAMILIES["sd3" if getattr(model, "is_sd3", False) else "sd1"]

    def weights(self, choice: str) -> Weights:
        """The weights that ``choice`` stands for with the loaded checkpoint, of its family.

        Raises:
            VaeLabError: they cannot be used, with the reason.
        """
        path = self.checkpoint_path() if choice == BUILT_IN else self.vae_path(choice)
        facts = self._usable(choice, path)
        family = self.model_family()
        if family is not None:
            check_family(choice, facts.family, family)
        if facts.architecture != "AutoencoderKL":
            raise HostError(f"{choice} is a {facts.architecture}: choose it in Settings > VAE > VAE type for decode")
        digest = short(facts.fingerprint)
        if self._host_has(choice, path):
            return Weights(choice, path, digest, None)
        return Weights(choice, path, digest, self._state(path))

    def _usable(self, name: str, path: str) -> VaeFacts:
        facts = self.facts.look(path)
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
            bench = Bench(generation, undo) if self._same_kind(generation) else None
            candidates = [self._candidate(name, generation, bench) for name in names]
            return compare_candidates(
                generation.latents, candidates, generation.family, progress=progress, cancelled=cancelled
            )

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
        family = self.model_family()
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

"""Faults injected into a generation, at every step of what VAE Lab does in it, on the doubles of the hosts."""

from __future__ import annotations

import gc
import importlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_module, kl_state, prefixed, write
from tests.unit.webui.double import Double, Info, Kind, P, Processed, forget, installed, load, model_of
from vae_lab.autoencoders.kl.module import AutoencoderKL
from vae_lab.host.infotext import OVERRIDE_KEY
from vae_lab.latents import GenerationStore
from vae_lab.latents.family import FAMILIES
from vae_lab.library import Recommendation
from vae_lab.service.background_task import BackgroundTask

Fault = Literal["error", "memory", "memory-cpu", "nan", "interrupt", "skip", "stop", "switch"]
FAULTS: dict[Fault, str] = {
    "error": "Exception",
    "memory": "Out of memory, CUDA",
    "memory-cpu": "Out of memory, CPU",
    "nan": "NaN",
    "interrupt": "Interrupt",
    "skip": "Skip",
    "stop": "Ctrl+C",
    "switch": "Checkpoint switch",
}
KINDS: tuple[Kind, ...] = ("webui", "forge", "reforge")
SEEDS = {"one.safetensors": 0, "two.safetensors": 2, "first.safetensors": 1, "third.safetensors": 3}
"""Of the weights in each file; ``one`` and ``two`` are checkpoints."""
FIRST, THIRD = "first.safetensors", "third.safetensors"
LATENTS = torch.randn((1, 4, 2, 2), generator=torch.Generator().manual_seed(7))
FACTOR = FAMILIES["sd1"].scaling_factor


class InjectedError(Exception):
    """An error that nobody expects."""


# --- a host that decodes ----------------------------------------------------------------------------------------------


class GeneratingDouble(Double):
    """Decodes for real, and can load another checkpoint.

    Attributes:
        checkpoint: the one that is selected.
        latents: those that it sampled last.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        super().__init__(kind, folder)
        self.checkpoint = "one.safetensors"
        self.latents: weakref.ref[Tensor] | None = None
        self.decoded_by = ""
        checkpoints = folder / "models" / "Stable-diffusion"
        self.infos = {name: Info(str(checkpoints / name)) for name in ("one.safetensors", "two.safetensors")}
        models, processing = self.part("sd_models"), self.part("processing")
        models.checkpoints_list = self.infos
        processing.decode_latent_batch = self.decode_latent_batch
        self.part("devices").test_for_nans = self._test_for_nans
        if kind == "forge":
            models.get_closet_checkpoint_match = lambda _: self.infos[self.checkpoint]
            models.forge_model_reload = self._load_as_forge
            self._load_as_forge()
        else:
            models.select_checkpoint = lambda: self.infos[self.checkpoint]
            models.reload_model_weights = self._load_in_place
            models.model_data.sd_model = self._new_model()

    @property
    def model(self) -> Any:
        return self.part("sd_models.model_data.sd_model")

    @property
    def module(self) -> AutoencoderKL:
        """The VAE in memory."""
        return self.model.first_stage_model if self.kind == "webui" else self.model.forge_objects.vae.first_stage_model

    def _model(self) -> Any:
        return self.model

    def _new_model(self) -> Any:
        path = self.infos[self.checkpoint].filename
        model, module = model_of(self.kind, path), kl_module(F8, SEEDS[self.checkpoint])
        if self.kind == "webui":
            module.dtype = torch.float32
            model.first_stage_model = module
        else:
            module.scaling_factor = FACTOR
            model.forge_objects.vae.first_stage_model = module
        model.decode_first_stage = lambda latent: self.decoding(module, latent)
        return model

    def decoding(self, module: AutoencoderKL, latent: Tensor) -> Tensor:
        return module.decode(latent / FACTOR)

    def _load_in_place(self, sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> None:
        """As the WebUI: into the module that it has."""
        model, wanted = self.model, info or self.infos[self.checkpoint]
        if model.sd_model_checkpoint == wanted.filename:
            return
        self.module.load_state_dict(kl_state(F8, SEEDS[wanted.name]))
        model.sd_checkpoint_info, model.sd_model_checkpoint = wanted, wanted.filename

    def _load_as_forge(self) -> None:
        """As Forge: everything is new."""
        data = self.part("sd_models.model_data")
        if data.forge_hash != str(data.forge_loading_parameters) or data.sd_model.sd_checkpoint_info not in (
            self.infos.values()
        ):
            data.sd_model = self._new_model()
            data.sd_model.sd_checkpoint_info = self.infos[self.checkpoint]
            data.forge_hash = str(data.forge_loading_parameters)

    def switch(self, name: str) -> None:
        """Select another checkpoint and load it, as the host does for a refiner."""
        self.checkpoint = name
        models = self.part("sd_models")
        if self.kind == "forge":
            models.model_data.forge_loading_parameters["checkpoint_info"] = self.infos[name]
            models.forge_model_reload()
        else:
            models.reload_model_weights(None, self.infos[name])

    # --- a generation --------------------------------------------------------------------------------------------

    def _inner(self, p: P) -> Processed:
        for script in self.scripts:
            script.process(p, *p.accordion)
        p.init()
        self.begin()
        with torch.inference_mode(self.kind != "webui"):
            latents = self.sample()
            self.latents = weakref.ref(latents)
            decoded = self.part("processing").decode_latent_batch(self.model, latents)
            del latents
            return self.finish(p, decoded)

    def begin(self) -> None:
        pass

    def sample(self) -> Tensor:
        return LATENTS.clone()

    def decode_latent_batch(self, model: Any, batch: Tensor) -> list[Tensor]:
        with torch.no_grad():
            images = [model.decode_first_stage(latent)[0] for latent in batch.split(1)]
        self.decoded_by = model.sd_checkpoint_info.name
        for image in images:
            self.part("devices").test_for_nans(image, "vae")
        return images

    def _test_for_nans(self, image: Tensor, where: str) -> None:
        if self.kind == "webui" and bool(image.isnan().any()):
            raise self.part("devices").NansException("A tensor with all NaNs was produced in VAE.")

    def finish(self, p: P, decoded: list[Tensor]) -> Processed:
        return self.part("processing").Processed(p, [pixels(image) for image in decoded])


def pixels(image: Tensor) -> np.ndarray:
    """[3,H,W] in -1..1 -> uint8 [H,W,3], as the hosts do."""
    return ((image.nan_to_num() + 1) / 2).clamp(0, 1).mul(255).byte().permute(1, 2, 0).cpu().numpy()


def images_by_name() -> dict[str, np.ndarray]:
    """What each VAE decodes."""
    with torch.no_grad():
        return {name: pixels(kl_module(F8, seed).decode(LATENTS / FACTOR)[0]) for name, seed in SEEDS.items()}


# --- where and what ---------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A call in which a fault happens.

    Attributes:
        title: what is done there.
        place: gives the owner of the function; see :class:`Parts`.
        name: of the function.
        call: which call of it, counted from 1.
        looks: what the watch sees in the image of ``first``.
        host: whether it is the host's own work.
        closed: whether nothing of the host runs in it, which could switch the checkpoint.
        decoding: whether the host has begun to decode, with a model that Forge does not replace until it has ended.
    """

    title: str
    place: Callable[[Any], Any]
    name: str
    call: int = 1
    looks: str = ""
    host: bool = False
    closed: bool = False
    decoding: bool = False


def _steps() -> dict[str, list[Step]]:
    return {
        "Override": [
            Step("read the accordion", lambda m: m.script.Plan, "from_args"),
            Step("read the settings", lambda m: m.host, "standing_choices_when_loaded"),
            Step("find the file", lambda m: m.host, "vae_path"),
            Step("identify the file", lambda m: m.host.file_cache, "identify"),
            Step("open the file", lambda m: m.a1111, "open_vae"),
            Step("read the weights", lambda m: m.autoencoder.VaeFile, "state_dict"),
            Step("convert the weights", lambda m: m.a1111, "converted"),
            Step("follow reloads", lambda m: m.job, "patch"),
            Step("check that the weights fit", lambda m: m.weight_swap, "check_fits"),
            Step("exchange the weights", lambda m: m.weight_swap.VaeSwap, "put"),
            Step("exchange the weights, halfway", lambda m: m.weight_swap, "_like", 40, closed=True),
            Step("name the VAE in the infotext", lambda m: m.job.Job, "update_infotext"),
            Step("name it again before the decode", lambda m: m.job.Job, "update_infotext", 2, decoding=True),
            Step("close the job", lambda m: m.job.Job, "close"),
            Step("put the weights back", lambda m: m.weight_swap.VaeSwap, "restore", closed=True),
            Step("put the weights back, halfway", lambda m: m.weight_swap.VaeSwap, "_restore", closed=True),
        ],
        "The host's own work": [
            Step("begin", lambda m: m.double, "begin", host=True),
            Step("sample", lambda m: m.double, "sample", host=True),
            Step("decode", lambda m: m.double, "decoding", host=True, decoding=True),
            Step("save the image", lambda m: m.double, "finish", host=True),
        ],
        "Capture": [
            Step("see the decode", lambda m: m.capture, "_decoder", decoding=True),
            Step("copy the latent", lambda m: m.capture.Jobs, "_capture", decoding=True),
            Step("ask for the family", lambda m: m.host.vae, "family", 2, decoding=True),
            Step("keep the copy", lambda m: m.job.Job, "capture", decoding=True),
            Step("store the latents", lambda m: m.capture.Jobs, "_file"),
            Step("make a generation of them", lambda m: m.capture.Jobs, "_generation"),
            Step("add it to the store", lambda m: m.host.generations, "add"),
            Step("follow the checkpoint", lambda m: m.capture.Jobs, "_follow_checkpoint"),
        ],
        "Watch": [
            Step("begin", lambda m: m.grey_watch.GreyWatch, "after_decode", decoding=True),
            Step("compare image and latent", lambda m: m.grey_watch, "glance", decoding=True),
            Step("check the VAE in memory", lambda m: m.host, "check_memory", looks="pale", decoding=True),
            Step("second opinion", lambda m: m.job.Job, "decoded_with", looks="pale", decoding=True),
            Step("second opinion, exchange", lambda m: m.weight_swap.VaeSwap, "put", 2, looks="pale", decoding=True),
            Step("second opinion, decode", lambda m: m.host.vae, "decode", looks="pale", decoding=True),
            Step("second opinion, put back", lambda m: m.weight_swap.VaeSwap, "restore", looks="pale", closed=True),
            Step("find a better VAE", lambda m: m.host, "recommendation", looks="flat", decoding=True),
            Step("word the reason", lambda m: m.grey_watch, "_overflowed", looks="flat", decoding=True),
            Step("override with it", lambda m: m.job.Job, "override", 2, looks="flat", decoding=True),
            Step("read its weights", lambda m: m.autoencoder.VaeFile, "state_dict", 2, looks="flat", decoding=True),
            Step("put the first one back", lambda m: m.weight_swap.VaeSwap, "restore", looks="flat", closed=True),
            Step("exchange the weights", lambda m: m.weight_swap.VaeSwap, "put", 2, looks="flat", decoding=True),
            Step("decode again", lambda m: m.double, "decoding", 2, looks="flat", decoding=True),
        ],
        "Comparison": [
            Step("begin", lambda m: m.capture.Jobs, "_compare"),
            Step("take the host's VAE", lambda m: m.a1111, "Bench"),
            Step("set up tiling", lambda m: m.host.vae, "set_tiling"),
            Step("identify the first VAE", lambda m: m.host.file_cache, "identify"),
            Step("identify the second VAE", lambda m: m.host.file_cache, "identify", 2),
            Step("open its file", lambda m: m.a1111, "open_vae", 2),
            Step("read its weights", lambda m: m.autoencoder.VaeFile, "state_dict", 2),
            Step("convert them", lambda m: m.a1111, "converted", 2),
            Step("exchange the weights", lambda m: m.weight_swap.VaeSwap, "put", 2),
            Step("exchange the weights, halfway", lambda m: m.weight_swap, "_like", 300, closed=True),
            Step("decode with the first", lambda m: m.double, "decoding", 2),
            Step("decode with the second", lambda m: m.double, "decoding", 3),
            Step("make pixels of the image", lambda m: m.compare, "to_pixels", 2),
            Step("put the weights back", lambda m: m.weight_swap.VaeSwap, "restore", closed=True),
            Step("put the weights back, halfway", lambda m: m.weight_swap.VaeSwap, "_restore", closed=True),
            Step("add the images", lambda m: m.capture, "_append"),
            Step("name the VAE of an image", lambda m: m.host, "digest"),
        ],
    }


STEPS = _steps()
ACCORDIONS: dict[str, tuple[Any, ...]] = {
    "Override": (FIRST, [], "off"),
    "The host's own work": (FIRST, [], "off"),
    "Capture": (FIRST, [], "off"),
    "Watch": (FIRST, [], "redecode"),
    "Comparison": ("Automatic", [FIRST, THIRD], "off"),
}


# --- a generation with a fault ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the user gets.

    Attributes:
        images: names of the VAEs that decoded them; None without a result.
        raised: name of the exception that reached the host's caller, or "".
        lines: below the image.
        compares: whether these are the images of a comparison.
    """

    images: tuple[str, ...] | None
    raised: str = ""
    lines: tuple[str, ...] = ()
    compares: bool = False


class Bed:
    """A double with VAE Lab in it, for one generation after another."""

    def __init__(self, double: GeneratingDouble) -> None:
        self.double = double
        self.host = importlib.import_module("vae_lab.extension").the_host()
        names = ("script", "job", "capture", "a1111", "weight_swap", "grey_watch")
        modules = {name: importlib.import_module(f"vae_lab.webui.{name}") for name in names}
        modules["autoencoder"] = importlib.import_module("vae_lab.autoencoders.autoencoder")
        modules["compare"] = importlib.import_module("vae_lab.comparison.compare")
        self.parts = SimpleNamespace(host=self.host, double=double, **modules)
        double.start(load)
        self.images = images_by_name()
        self._jobs: weakref.WeakSet[Any] = weakref.WeakSet()
        self._queued: threading.Thread | None = None
        self._follow_jobs()

    def _follow_jobs(self) -> None:
        job = self.parts.job.Job
        original = job.__init__

        def init(made: Any, *args: Any, **kwargs: Any) -> None:
            original(made, *args, **kwargs)
            self._jobs.add(made)

        job.__init__ = init

    def run(self, group: str, step: Step | None, fault: Fault | None) -> Outcome | None:
        """Generate once with the fault, then once without; None if this fault cannot happen in this step.

        Raises:
            AssertionError: the user lost an image, or the host is not as it was.
        """
        if fault == "switch" and step and (step.closed or (step.decoding and self.double.kind == "forge")):
            return None
        injection = Injection(step, fault, self._actions(group == "Comparison"))
        own = {name: (parameter, parameter.data_ptr()) for name, parameter in self.double.module.named_parameters()}
        before = self.double.attributes()
        self._jobs = weakref.WeakSet()
        with self._seeing(group, step.looks if step else ""), injection.active(self.parts):
            outcome = self._generate(ACCORDIONS[group], injection)
        assert injection.fired == (step is not None), "the step was not reached"
        if not injection.applies:
            self._reset()
            return None
        self._check_host(own, before)
        self._check_memory()
        if step is not None:
            self._check_outcome(outcome, injection)
        self._reset()
        return outcome

    def _generate(self, accordion: tuple[Any, ...], injection: Injection) -> Outcome:
        p = P()
        p.accordion = accordion
        lock = self.double.part("call_queue.queue_lock")
        with lock:
            try:
                processed = self.double.part("processing").process_images_inner(p)
            except BaseException as error:
                if injection.fault not in ("stop", "nan") and not (injection.step and injection.step.host):
                    raise
                return Outcome(None, type(error).__name__, tuple(p.comments))
            finally:
                assert "init" not in vars(p)
        if self._queued is not None:
            self._queued.join()
        self._check_named(p, processed)
        lines = (*p.comments, *filter(None, processed.comments.split("\n")))
        compares = bool(accordion[1])
        return Outcome(tuple(map(self._name, processed.images[compares:])), "", lines, compares)

    def _actions(self, queued: bool) -> dict[Fault, Callable[[], object]]:
        """What the user or the host does.

        Args:
            queued: the checkpoint is selected on the page, and waits for the host's queue.
        """
        state = self.double.part("shared.state")
        self._queued = None

        def switch() -> None:
            with self.double.part("call_queue.queue_lock"):
                self.double.switch("two.safetensors")

        def enqueue() -> None:
            self._queued = threading.Thread(target=switch)
            self._queued.start()

        return {
            "interrupt": lambda: setattr(state, "interrupted", True),
            "skip": lambda: setattr(state, "skipped", True),
            "switch": enqueue if queued else lambda: self.double.switch("two.safetensors"),
        }

    def _name(self, image: Any) -> str:
        """Of the VAE that decoded an image, in strips too; ``black`` if none did."""
        values = np.asarray(image).astype(int)
        return next((name for name, decoded in self.images.items() if abs(values - decoded).max() <= 1), "black")

    def _check_named(self, p: P, processed: Processed) -> None:
        """The infotext names the VAE that decoded."""
        decoder = self._name(processed.images[0])
        named = p.extra_generation_params.get(OVERRIDE_KEY, self.double.decoded_by)
        assert decoder in (named, "black"), f"decoded by {decoder}, the infotext says {named}"

    def _check_outcome(self, outcome: Outcome, injection: Injection) -> None:
        step, fault = injection.step, injection.fault
        assert step is not None
        if fault == "stop":
            assert outcome.raised == "KeyboardInterrupt"
        elif step.host and fault in ("error", "memory", "memory-cpu"):
            assert outcome.raised == type(error_of(fault)).__name__
        elif fault != "nan":
            assert outcome.images is not None
            assert "black" not in outcome.images

    def _check_host(self, own: dict[str, tuple[Tensor, int]], before: list[dict[str, Any]]) -> None:
        """The VAE of the checkpoint that is loaded now, in the same objects, and no function of ours."""
        double = self.double
        wanted = kl_state(F8, SEEDS[double.checkpoint])
        assert double.model.sd_checkpoint_info.name == double.checkpoint
        for name, parameter in double.module.named_parameters():
            if double.kind != "forge" or double.checkpoint == "one.safetensors":
                assert (parameter, parameter.data_ptr()) == (own[name][0], own[name][1]) or parameter is own[name][0]
                assert parameter.data_ptr() == own[name][1], name
            assert torch.equal(parameter, wanted[name]), name
        assert double.attributes() == before
        assert double.part("devices.dtype_vae") == torch.float32
        assert not double.part("call_queue.queue_lock").locked()

    def _check_memory(self) -> None:
        """Nothing refers to the latents or to other weights, except the stores of known size."""
        assert self.double.latents is None or self.double.latents() is None, "the host's latents"
        if self._jobs:
            gc.collect()  # after an error in it, contextlib leaves a cycle
        assert not self._jobs, "a job"
        weights = [weakref.ref(tensor) for state in self.host._states.values() for tensor in state.values()]
        self.host._states.clear()
        assert not [ref for ref in weights if ref() is not None], "other weights"

    def renew(self) -> None:
        """Begin again with another model, after a failure."""
        self.double.checkpoint = "one.safetensors"
        self.double.part("sd_models.model_data").sd_model = self.double._new_model()
        self._reset()

    def _reset(self) -> None:
        self.double.part("shared.state").interrupted = self.double.part("shared.state").skipped = False
        if self.double.checkpoint != "one.safetensors":
            self.double.switch("one.safetensors")
        self.host._states.clear()
        self.host.generations = GenerationStore(2**20)

    @contextmanager
    def _seeing(self, group: str, looks: str) -> Iterator[None]:
        """What the watch sees and knows; the real checkups take seconds."""
        if group != "Watch":
            yield
            return
        watch = self.parts.grey_watch
        with pytest.MonkeyPatch.context() as patching:
            patching.setattr(self.host, "check_memory", lambda *_, **__: None)
            patching.setattr(self.host, "recommendation", lambda **_: Recommendation(THIRD, "it is healthy"))
            patching.setattr(watch, "confirmed", lambda *_: [True])
            if looks:
                seen = SimpleNamespace(fault="flat" if looks == "flat" else "", pale=looks == "pale")
                patching.setattr(watch, "glance", lambda *_: [seen])
            yield


class Injection:
    """A fault in one call.

    Attributes:
        fired: whether the call was reached.
        applies: whether the fault can happen there.
    """

    def __init__(self, step: Step | None, fault: Fault | None, actions: Mapping[Fault, Callable[[], object]]) -> None:
        self.step, self.fault, self._actions = step, fault, actions
        self.fired, self.applies = False, True
        self._calls = 0

    @contextmanager
    def active(self, parts: Any) -> Iterator[None]:
        if self.step is None:
            yield
            return
        owner, name = self.step.place(parts), self.step.name
        original, own = getattr(owner, name), vars(owner).get(name)

        def replacement(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            if self.step is None or self._calls != self.step.call:
                return original(*args, **kwargs)
            self.fired = True
            return self._happen(lambda: original(*args, **kwargs))

        setattr(owner, name, staticmethod(replacement) if isinstance(own, classmethod) else replacement)
        try:
            yield
        finally:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    def _happen(self, work: Callable[[], Any]) -> Any:
        if self.fault in ("error", "memory", "memory-cpu", "stop"):
            raise error_of(self.fault)
        if self.fault == "nan":
            result = work()
            broken = with_nan(result)
            self.applies = broken is not None
            return result if broken is None else broken
        self._actions[self.fault or "skip"]()
        return work()


def error_of(fault: Fault | None) -> BaseException:
    """A new one."""
    return {
        "error": InjectedError("injected"),
        "memory": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "memory-cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."),
        "stop": KeyboardInterrupt(),
    }[str(fault)]


def with_nan(value: Any) -> Any:
    """``value`` with all its tensors full of NaN; None if it has none."""
    if isinstance(value, Tensor):
        return torch.full_like(value, torch.nan)
    if isinstance(value, dict) and value and all(isinstance(each, Tensor) for each in value.values()):
        return {name: with_nan(tensor) for name, tensor in value.items()}
    return None


def make_models(folder: Path) -> Path:
    """A host's folder with two checkpoints and two VAEs."""
    for name in ("Stable-diffusion", "VAE"):
        (folder / "models" / name).mkdir(parents=True)
    for name, seed in SEEDS.items():
        state = kl_state(F8, seed)
        if name in ("one.safetensors", "two.safetensors"):
            built_in = prefixed("first_stage_model.", state)
            write(folder / "models" / "Stable-diffusion" / name, {**UNET, **SD1_TEXT, **built_in})
        else:
            write(folder / "models" / "VAE" / name, state)
    return folder


@contextmanager
def bed(kind: Kind, folder: Path) -> Iterator[Bed]:
    """A double of this kind, with our part in it."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(BackgroundTask, "start", lambda *_: None)
        double = GeneratingDouble(kind, folder)
        installed(double, patching)
        logging.disable()  # a log record of an error keeps the tensors in its traceback
        try:
            yield Bed(double)
        finally:
            logging.disable(logging.NOTSET)
            forget()


class Runs(Protocol):
    """A host that can be run with faults."""

    def run(self, group: str, step: Step | None, fault: Fault | None) -> Outcome | None:
        """The outcome; None if the fault cannot happen there. Raises AssertionError."""

    def renew(self) -> None:
        """Begin again after a failure."""


def outcomes(
    host: Runs, steps: Iterable[tuple[str, Step]], faults: Iterable[Fault] = tuple(FAULTS)
) -> list[Outcome | str | None]:
    """For each step of a group, and each fault in it: the outcome, None where it cannot happen, or why it FAILED."""
    found: list[Outcome | str | None] = []
    for group, step in steps:
        for fault in faults:
            try:
                found.append(host.run(group, step, fault))
            except Exception as error:  # a failed case must not hide the others
                found.append(f"FAILED: {group}, {step.title}, {fault}: {type(error).__name__}: {error}".splitlines()[0])
                host.renew()
    return found

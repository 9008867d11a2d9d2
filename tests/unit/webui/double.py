"""A double of the WebUI, Forge and reForge, of which any part can be missing or fail, and which calls us as they do.

What the hosts guard themselves is not guarded here, so that an error of ours fails the test.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch

import vae_lab
from tests.unit.makers import F8, kl_module
from vae_lab.autoencoders.kl.module import AutoencoderKL
from vae_lab.latents.family import FAMILIES

Kind = Literal["webui", "forge", "reforge"]
Fault = Literal["missing", "failing"]
MakeDouble = Callable[..., "Double"]

CALLBACKS = (
    *("on_before_ui", "on_ui_settings", "on_ui_tabs", "on_app_started", "on_model_loaded", "on_infotext_pasted"),
    "on_script_unloaded",
)


class Part(ModuleType):
    """A module or an object of the host: an attribute in ``failing`` raises another error than AttributeError."""

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("failing", ()):
            raise RuntimeError(f"{name} is broken")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class Info:
    def __init__(self, path: str) -> None:
        self.filename, self.name = path, Path(path).name

    def register(self) -> None:
        pass


class OptionInfo:
    def __init__(self, default: Any, label: str, component: Any, args: Any, refresh: Any = None, section: Any = None):
        self.default, self.args, self.refresh = default, args, refresh

    def info(self, text: str) -> OptionInfo:
        return self


class Options(Part):
    def add_option(self, name: str, info: OptionInfo) -> None:
        self.data_labels[name] = info

    def set(self, name: str, value: Any) -> None:
        self.data[name] = value

    def save(self, file: str) -> None:
        pass


class Script:
    """Base class of scripts."""

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def postprocess_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        pass


class ScriptPostprocessing:
    """Base class of scripts in the Extras tab."""


class PostprocessedImage:
    def __init__(self, image: Any) -> None:
        self.image = image
        self.info: dict[str, Any] = {}


class ScriptRunner:
    selectable_scripts: tuple[Any, ...] = ()

    def run(self, p: Any, chosen: int = 0) -> Any:
        return self.selectable_scripts[chosen - 1].run(p) if chosen else None


class Processed:
    def __init__(self, p: Any, images: list[Any], seed: int = -1, info: str = "") -> None:
        self.images, self.info, self.comments, self.index_of_first_image = images, info, "", 0
        self.infotexts = ["a boat\nSteps: 1, Sampler: Euler, CFG scale: 7"] * len(images)

    def js(self) -> str:
        return "{}"


class Plot:
    """The X/Y/Z plot's module."""

    class AxisOption:
        def __init__(self, label: str, kind: type, apply: Any, **functions: Any) -> None:
            self.label, self.apply = label, apply
            self.confirm, self.choices = functions["confirm"], functions["choices"]

    def __init__(self) -> None:
        self.axis_options: list[Any] = []

    def format_value(self, p: Any, option: Any, value: Any) -> str:
        return str(value)


class P:
    """A processing object."""

    def __init__(self) -> None:
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: list[str] = []
        self.prompt, self.tiling, self.iteration, self.script_args = "a boat", False, 0, (0,)
        self.width = self.height = 64
        self.accordion: tuple[Any, ...] = ("Automatic", [], "As in Settings")
        self.has_scripts, self.level, self.n_iter = True, 1.0, 1
        self.override_settings: dict[str, Any] = {}
        self.do_not_save_samples = False

    def comment(self, line: str) -> None:
        self.comments.append(line)

    def init(self, *_: Any) -> None:
        pass


@lru_cache(maxsize=1)
def vae() -> AutoencoderKL:
    """The VAE in memory, of every double: each must leave it as it was."""
    return kl_module(F8)


def model_of(kind: Kind, checkpoint: str) -> Part:
    model, module = Part("model"), vae()
    model.sd_checkpoint_info, model.sd_model_checkpoint = Info(checkpoint), checkpoint
    model.is_sdxl = model.is_sd3 = False
    model.decode_first_stage = lambda latent: torch.zeros(1, 3, 64, 64)
    if kind == "webui":
        module.dtype = torch.float32
        model.first_stage_model = module
        return model
    model.forge_objects = Part("objects")
    model.forge_objects.vae = Part("vae")
    model.forge_objects.vae.first_stage_model, model.forge_objects.vae.latent_channels = module, 4
    factor = FAMILIES["sd1"].scaling_factor
    if kind == "forge":
        module.scaling_factor = factor
    else:
        scales = Part("latent_format")
        scales.scale_factor = factor
        model.forge_objects.unet = Part("unet")
        model.forge_objects.unet.model = Part("model")
        model.forge_objects.unet.model.model_config = Part("model_config")
        model.forge_objects.unet.model.model_config.latent_format = scales
    return model


class Resolved:
    def __init__(self) -> None:
        self.vae, self.source = None, None


def _parts(kind: Kind, folder: Path) -> dict[str, Any]:
    """Dotted name below ``modules`` -> value, of everything that we use."""
    models = folder / "models"
    checkpoint = str(models / "Stable-diffusion" / "one.safetensors")

    class NansException(Exception):
        pass

    class Autocast:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    def nothing(*_: Any, **__: Any) -> None:
        pass

    parts: dict[str, Any] = {
        "call_queue.queue_lock": threading.Lock(),
        "devices.NansException": NansException,
        "devices.cpu": torch.device("cpu"),
        "devices.device": torch.device("cpu"),
        "devices.dtype_vae": torch.float32,
        "devices.fp8": False,
        "devices.test_for_nans": nothing,
        "devices.torch_gc": nothing,
        "devices.without_autocast": Autocast,
        "paths_internal.data_path": str(folder / "data"),
        "paths_internal.models_path": str(models),
        "processing.Processed": type("Processed", (Processed,), {"js": Processed.js}),
        "processing.decode_latent_batch": lambda model, batch: [torch.full((3, 8, 8), 0.5) for _ in batch],
        "processing.process_images_inner": nothing,
        "scripts.AlwaysVisible": object(),
        "scripts.Script": Script,
        "scripts.ScriptRunner": type("ScriptRunner", (ScriptRunner,), {"run": ScriptRunner.run}),
        "scripts.scripts_data": [],
        "scripts_postprocessing.ScriptPostprocessing": ScriptPostprocessing,
        "sd_hijack.model_hijack": Part("hijack"),
        "sd_hijack.model_hijack.apply_circular": nothing,
        "sd_models.CheckpointInfo": Info,
        "sd_models.checkpoints_list": {"one": Info(checkpoint)},
        "sd_models.model_data": Part("model_data"),
        "sd_models.model_data.sd_model": model_of(kind, checkpoint),
        "sd_models.model_path": str(models / "Stable-diffusion"),
        "sd_vae.loaded_vae_file": None,
        "sd_vae.vae_dict": {},
        "sd_vae.vae_path": str(models / "VAE"),
        "shared.OptionInfo": OptionInfo,
        "shared.cmd_opts": Part("cmd_opts"),
        "shared.config_filename": str(folder / "config.json"),
        "shared.opts": Options("opts"),
        "shared.opts.data": {},
        "shared.opts.data_labels": {},
        "shared.state": Part("state"),
    }
    parts |= {f"script_callbacks.{name}": None for name in CALLBACKS}
    options = ("api_auth", "ckpt", "ckpt_dir", "ckpt_dirs", "vae_dir", "vae_dirs", "vae_path")
    parts |= {f"shared.cmd_opts.{name}": None for name in options}
    parts |= {f"shared.state.{name}": False for name in ("current_latent", "interrupted", "skipped")}
    settings = {
        "auto_vae_precision": True,
        "auto_vae_precision_bfloat16": False,
        "enable_pnginfo": True,
        "live_preview_fast_interrupt": False,
        "localization": "None",
        "sd_model_checkpoint": "one.safetensors",
        "sd_vae": "Automatic",
        "sd_vae_decode_method": "Full",
        "sd_vae_encode_method": "Full",
        "sd_vae_overrides_per_model_preferences": True,
        "show_progress_type": "Approx NN",
    }
    parts |= {f"shared.opts.{name}": value for name, value in settings.items()}
    if kind != "forge":
        parts |= {
            "sd_models.check_fp8": lambda model: False,
            "sd_models.reload_model_weights": nothing,
            "sd_models.select_checkpoint": lambda: Info(checkpoint),
            "sd_vae.is_automatic": lambda: True,
            "sd_vae.refresh_vae_list": nothing,
            "sd_vae.reload_vae_weights": nothing,
            "sd_vae.resolve_vae": lambda checkpoint: Resolved(),
            "sd_vae.restore_base_vae": nothing,
        }
    else:
        parts |= {
            "sd_models.forge_model_reload": nothing,
            "sd_models.get_closet_checkpoint_match": lambda name: Info(checkpoint),
            "sd_models.model_data.forge_hash": "",
            "sd_models.model_data.forge_loading_parameters": {},
            "shared.opts.forge_additional_modules": [],
        }
    return parts


class Double:
    """A host that runs in this process.

    Args:
        kind: of host.
        folder: with its models and data.
        broken: names below ``modules`` -> what is wrong with each: ``missing``, or ``failing`` when it is read.
    """

    def __init__(self, kind: Kind, folder: Path, broken: Mapping[str, Fault] | None = None) -> None:
        self.kind = kind
        self.called: dict[str, list[Callable[..., Any]]] = {name: [] for name in CALLBACKS}
        self.plot = Plot()
        self._parts = _parts(kind, folder)
        data = Part("data")
        data.script_class, data.module = type("Plot", (), {"__module__": "xyz_grid.py"}), self.plot
        self._parts["scripts.scripts_data"] = [data]
        self._parts["processing.process_images_inner"] = self._inner
        for name in CALLBACKS:
            self._parts[f"script_callbacks.{name}"] = self.called[name].append
        self.names = [*self._parts, *dict.fromkeys(name.split(".")[0] for name in self._parts)]
        self.modules = self._build(broken or {})
        self.processing = self.modules.get("processing")
        self.scripts: list[Any] = []
        self.extras: Any = None
        self.before_decode: Callable[[], None] = lambda: None
        self.postprocess_image: Callable[[P], None] = lambda p: None
        """Of other extensions."""

    def part(self, name: str) -> Any:
        """What is at ``name`` now."""
        module, *path = name.split(".")
        found: Any = self.modules[module]
        for attribute in path:
            found = getattr(found, attribute)
        return found

    def _build(self, broken: Mapping[str, Fault]) -> dict[str, Part | None]:
        modules: dict[str, Part | None] = {name.split(".")[0]: None for name in self._parts}
        for name in modules:
            if broken.get(name) != "missing":
                modules[name] = Part(f"modules.{name}")
        for name, value in self._parts.items():
            first, *path, last = name.split(".")
            owner: Any = modules[first]
            for attribute in path:
                owner = vars(owner).get(attribute) if owner is not None else None
            if owner is None:
                continue
            if name in broken:
                if broken[name] == "failing":
                    owner.__dict__.setdefault("failing", set()).add(last)
                continue
            setattr(owner, last, value)
        return modules

    @property
    def generates(self) -> bool:
        """Whether it has what itself needs to make an image."""
        names = ("process_images_inner", "decode_latent_batch", "Processed")
        return self.processing is not None and all(name in vars(self.processing) for name in names)

    def attributes(self) -> list[dict[str, Any]]:
        """Everything in its modules and classes: what we replace must be as before when we are unloaded."""
        owners: list[Any] = [module for module in self.modules.values() if module is not None]
        owners += [self._parts["processing.Processed"], self._parts["scripts.ScriptRunner"]]
        return [dict(vars(owner)) for owner in owners]

    # --- as the host calls us ------------------------------------------------------------------------------------

    def _inner(self, p: P) -> Processed:
        scripts = self.scripts if p.has_scripts else []
        for script in scripts:
            script.process(p, *p.accordion)
        images, infotexts = [], []
        for iteration in range(p.n_iter):
            p.iteration = iteration
            for script in scripts:
                script.process_batch(p, *p.accordion, batch_number=p.iteration)
            self.before_decode()
            decoded = self.processing.decode_latent_batch(self._model(), torch.full((1, 4, 8, 8), p.level))
            for script in scripts:
                script.postprocess_batch(p, *p.accordion, images=decoded, batch_number=p.iteration)
            self.postprocess_image(p)
            images += [(image * 255).byte().numpy() for image in decoded]
            infotexts.append(
                ", ".join(["a boat\nSteps: 1", *(f"{k}: {v}" for k, v in p.extra_generation_params.items())])
            )
        processed = self.processing.Processed(p, images)
        processed.infotexts, processed.comments = infotexts, "".join(f"{line}\n" for line in p.comments)
        return processed

    def process_images(self, p: P) -> Processed:
        """What scripts and other extensions call: ``override_settings`` hold meanwhile."""
        options, reload = self._parts["shared.opts"], self.part("sd_vae.reload_vae_weights")
        before = options.sd_vae
        if "sd_vae" in p.override_settings:
            options.sd_vae = p.override_settings["sd_vae"]
            reload()
        try:
            return self.processing.process_images_inner(p)
        finally:
            if "sd_vae" in p.override_settings:
                options.sd_vae = before
                self.part("sd_vae.reload_vae_weights")()

    def _model(self) -> Any:
        return self._parts["sd_models.model_data.sd_model"]

    def start(self, load: Callable[[], Any]) -> list[Any]:
        """As a start does, up to the page; returns the tabs."""
        script, extras = load(), load_extras()
        self._call("on_before_ui")
        self._call("on_ui_settings")
        labels = self._parts["shared.opts.data_labels"]
        for info in labels.values():
            assert isinstance(info.args() if callable(info.args) else info.args, dict)
            if info.refresh:
                info.refresh()
        for option in self.plot.axis_options:
            assert "Built-in" in option.choices()
            option.confirm(P(), ["Automatic"])
        self.scripts = [script()] if script is not None else []
        for script in self.scripts:
            assert script.title() == "VAE Lab"
            for img2img in (False, True):
                script.ui(img2img)
            for _, paste in getattr(script, "infotext_fields", ()):
                paste({"VAE Lab override": "gone.safetensors"})
        self.extras = extras() if extras is not None else None
        if self.extras is not None:
            assert isinstance(self.extras.ui(), dict)
        return [tab for tabs in self._call("on_ui_tabs") for tab in tabs]

    def app_started(self, app: Any) -> None:
        self._call("on_app_started", None, app)
        self._call("on_model_loaded", self._model())
        self._call("on_infotext_pasted", "", {})

    def generate(self, *accordion: Any) -> tuple[Processed, P]:
        """An image with these values of the accordion."""
        p = P()
        p.accordion = accordion or p.accordion
        processed = self.processing.process_images_inner(p)
        processed.js()
        return processed, p

    def postprocess(self, image: Any, **values: Any) -> PostprocessedImage:
        """An image of the Extras tab, with these values of the accordion; the host's queue is taken meanwhile."""
        pp = PostprocessedImage(image)
        with self._parts["call_queue.queue_lock"]:
            self.extras.process(pp, **values)
        return pp

    def unload(self) -> None:
        self._call("on_script_unloaded")

    def _call(self, callback: str, *args: Any) -> list[Any]:
        return [function(*args) for function in self.called[callback]]


def installed(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package ``modules`` be ``double``, and have ours imported anew, as in another process."""
    for name in [name for name in sys.modules if name.split(".")[0] == "modules" or _inside(name)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("webui", "extension"):
        monkeypatch.delattr(vae_lab, name, raising=False)
    package = Part("modules")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "modules", package)
    for name in ("ldm_patched", "ldm_patched.modules", "modules_forge", "modules_forge.forge_loader"):
        if double.kind == "reforge":
            monkeypatch.setitem(sys.modules, name, Part(name))
        else:
            monkeypatch.delitem(sys.modules, name, raising=False)
    if double.kind == "reforge":
        sys.modules["ldm_patched.modules"].sd = Part("sd")
        sys.modules["modules_forge.forge_loader"].load_model_for_a1111 = None
    for name, module in double.modules.items():
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
        if module is not None:
            setattr(package, name, module)


def _inside(name: str) -> bool:
    return name == "vae_lab.extension" or name == "vae_lab.webui" or name.startswith("vae_lab.webui.")


def forget() -> None:
    """Remove what was imported with a double."""
    for name in [name for name in sys.modules if _inside(name)]:
        del sys.modules[name]


# --- as scripts/vae_lab.py loads us ---------------------------------------------------------------------------------


class Pages:
    """Calls what the real pages call while they are built, and is built in a moment."""

    dropdown = several = slider = radio = dict

    def build_tab(self, host: Any) -> Any:
        host.vaes(), host.checkpoints(), host.current_checkpoint(), host.decision(), host.language
        host.generations.newest_first()
        return host

    def build_accordion(self, host: Any, tab: str) -> Any:
        host.vaes(), host.decision()
        return Accordion()

    def build_extras(self, host: Any, input_accordion: Any) -> dict[str, Any]:
        host.vaes()
        return {"enabled": object(), "encode": object(), "decode": object()}


class Accordion:
    components = (object(), object(), object())
    box = not_here = object()

    def say_not_here(self, reason: str) -> Any:
        return reason

    open_for = say_not_here

    def leave(self) -> Any:
        return None


def load() -> type | None:
    return importlib.import_module("vae_lab.extension").load(Pages())


def load_extras() -> type | None:
    return importlib.import_module("vae_lab.extension").load_extras(Pages())

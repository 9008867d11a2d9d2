"""A WebUI booted in this process, as ``webui.py --nowebui`` does, with VAE Lab among its extensions.

Nothing is written into the user's WebUI: settings, extensions, caches and outputs go to our own data folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

CPU_FLAGS = ["--skip-torch-cuda-test", "--no-half", "--use-cpu", "all"]
FLAGS = [
    *("--skip-prepare-environment", "--skip-version-check", "--do-not-download-clip", "--no-download-sd-model"),
    *("--api", "--nowebui", "--disable-console-progressbars"),
]


class WebUI:
    """The parts of the booted WebUI that the tests use."""

    def __init__(self, api: Any, app: Any, outputs: Path) -> None:
        from modules import devices, processing, scripts, sd_models, sd_vae, shared

        self.api, self.app = api, app
        self.devices, self.processing, self.scripts = devices, processing, scripts
        self.sd_models, self.sd_vae, self.shared = sd_models, sd_vae, shared
        self.outputs = outputs

    @property
    def model(self) -> Any:
        return self.sd_models.model_data.sd_model

    def runner(self, img2img: bool) -> Any:
        from modules import ui

        runner = self.scripts.scripts_img2img if img2img else self.scripts.scripts_txt2img
        if not runner.scripts:
            runner.initialize_scripts(img2img)
            ui.create_ui()
        return runner

    def processing_object(self, *, img2img: bool = False, lab: Any = None, **options: Any) -> Any:
        """A processing object as the API makes it; ``lab`` is the API argument of VAE Lab."""
        runner = self.runner(img2img)
        values = self.api.init_default_script_args(runner)
        if lab is not None:
            script = next(s for s in runner.scripts if s.title() == "VAE Lab")
            values[script.args_from] = lab
        kind = "StableDiffusionProcessingImg2Img" if img2img else "StableDiffusionProcessingTxt2Img"
        defaults = {
            "prompt": "a lighthouse",
            "seed": 7,
            "steps": 3,
            "width": 128,
            "height": 128,
            "sampler_name": "Euler",
            "do_not_save_samples": True,
            "do_not_save_grid": True,
            "outpath_grids": str(self.outputs),
        }
        p = getattr(self.processing, kind)(**(defaults | options))
        p.is_api = True  # before scripts: else the UI's own sampler and seed scripts overwrite what is set here
        p.scripts, p.script_args = runner, tuple(values)
        return p

    def generate(self, **options: Any) -> Any:
        """Run one generation to its end; returns the host's ``Processed``. Encoding is seeded."""
        import torch

        p = self.processing_object(**options)
        torch.manual_seed(1)
        self.shared.state.begin(job="test")
        try:
            with contextlib.closing(p):
                return self.processing.process_images(p)
        finally:
            self.shared.state.end()

    def run_script(self, title: str, arguments: dict[str, Any], *, img2img: bool = False, **options: Any) -> Any:
        """Run a script of the "Script" menu; ``arguments`` by the label of their component."""
        import gradio as gr
        import torch

        p = self.processing_object(img2img=img2img, **options)
        script = next(s for s in p.scripts.selectable_scripts if s.title() == title)
        with gr.Blocks():
            controls = script.ui(img2img)
        values = list(p.script_args)
        for i, control in enumerate(controls):
            value = arguments.get(getattr(control, "label", None), control.value)
            if getattr(control, "type", "") == "index":
                value = [choice[0] if isinstance(choice, tuple) else choice for choice in control.choices].index(value)
            values[script.args_from + i] = value
        values[0] = p.scripts.selectable_scripts.index(script) + 1
        p.script_args = tuple(values)
        torch.manual_seed(1)
        self.shared.state.begin(job="test")
        try:
            with contextlib.closing(p):
                return p.scripts.run(p, *p.script_args)
        finally:
            self.shared.state.end()

    def vae_bytes(self) -> dict[str, bytes]:
        """The host's VAE as it is in memory."""
        state = self.model.first_stage_model.state_dict()
        return {name: tensor.detach().cpu().float().numpy().tobytes() for name, tensor in state.items()}

    def select_checkpoint(self, name: str) -> None:
        """As the checkpoint menu does; a hires checkpoint may have left another one loaded than the setting says."""
        info = self.sd_models.get_closet_checkpoint_match(name)
        self.shared.opts.data["sd_model_checkpoint"] = info.title
        from modules.call_queue import queue_lock

        with queue_lock:  # as the menu waits for its turn: else the look at the VAE in memory comes in between
            self.sd_models.reload_model_weights(info=info)

    def choose_natively(self, vae: str) -> None:
        """As Settings > VAE > SD VAE does."""
        self.sd_vae.refresh_vae_list()
        self.shared.opts.set("sd_vae", vae)


def pasted_override(parameters: dict[str, Any]) -> str:
    """What the accordion's menu in txt2img chooses for pasted generation parameters."""
    from modules.infotext_utils import paste_fields

    choose = next(
        field
        for component, field in paste_fields["txt2img"]["fields"]
        if getattr(component, "elem_id", "") == "vae_lab_txt2img_override"
    )
    return choose(parameters)


def pixels(processed: Any) -> list[np.ndarray]:
    """All images of a result."""
    return [np.asarray(image) for image in processed.images]


def boot(webui: Path, data: Path, flags: list[str]) -> WebUI:
    """Boot the WebUI in ``webui`` with its data in ``data``."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.pop("COMMANDLINE_ARGS", None)
    checkpoint = data / "models" / "Stable-diffusion" / "one.safetensors"
    sys.argv = [str(webui / "webui.py"), *FLAGS, "--data-dir", str(data), "--ckpt", str(checkpoint), *flags]
    os.chdir(webui)
    sys.path.insert(0, str(webui))
    import webui as _  # noqa: F401  parses sys.argv
    from fastapi import FastAPI
    from modules import initialize, initialize_util, script_callbacks, sd_models, shared
    from modules.api.api import Api
    from modules.call_queue import queue_lock

    initialize.initialize()
    shared.opts.data["face_restoration_model"] = "Mirror"
    app = FastAPI()
    initialize_util.setup_middleware(app)
    api = Api(app, queue_lock)
    script_callbacks.before_ui_callback()
    script_callbacks.app_started_callback(None, app)
    sd_models.model_data.get_sd_model()
    booted = WebUI(api, app, data / "outputs")
    booted.runner(False), booted.runner(True)
    return booted

"""Another extension that tests install next to VAE Lab: a face restorer, and scripts that generate on their own."""

SOURCE = '''
from contextlib import closing
from copy import copy

import modules.face_restoration
from modules import processing, scripts, shared


class Mirror(modules.face_restoration.FaceRestoration):
    def name(self):
        return "Mirror"

    def restore(self, np_image):
        return np_image[:, ::-1].copy()


shared.face_restorers.append(Mirror())


class Nested(scripts.Script):
    """Refines the finished image with its own generation, as detailers do: ``nested``, or ``nested by two.ckpt``
    with its own checkpoint, or ``nested by two.ckpt for good``, which stays the chosen one afterwards."""

    def title(self):
        return "Nested"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def postprocess_image(self, p, pp):
        if "nested" not in p.prompt:
            return
        own, stays = p.prompt.partition("nested by ")[2].removesuffix(" for good"), p.prompt.endswith(" for good")
        inner = processing.StableDiffusionProcessingImg2Img(
            init_images=[pp.image], prompt="inner", seed=3, steps=3, width=128, height=128, sampler_name="Euler",
            denoising_strength=0.5, do_not_save_samples=True, do_not_save_grid=True,
            override_settings={"sd_model_checkpoint": own} if own else {},
            override_settings_restore_afterwards=not stays,
        )
        with closing(inner):
            pp.image = processing.process_images(inner).images[0]


before_us = processing.process_images_inner  # as ControlNet saves it


class Detailer(scripts.Script):
    """As ADetailer: ``detailed``, or ``detailed past`` while ControlNet's saved function is put back; and ``with
    second.safetensors`` as its own VAE. Afterwards it reads the parameters of all scripts again, from a copy."""

    def title(self):
        return "Detailer"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def postprocess_image(self, p, pp):
        if "detailed" not in p.prompt:
            return
        named = p.prompt.partition(" with ")[2]
        inner = processing.StableDiffusionProcessingImg2Img(
            init_images=[pp.image], prompt="a detail", seed=3, steps=3, width=64, height=64, sampler_name="Euler",
            denoising_strength=0.5, do_not_save_samples=True, do_not_save_grid=True,
            override_settings={"sd_vae": named} if named else {},
        )
        now = processing.process_images_inner
        if "detailed past" in p.prompt:
            processing.process_images_inner = before_us
        try:
            with closing(inner):
                pp.image = processing.process_images(inner).images[0]
        finally:
            processing.process_images_inner = now
        p.scripts.process(copy(p))
'''

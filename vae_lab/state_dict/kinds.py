"""What a file is if no VAE can be loaded from it: another kind of VAE, another kind of model, a shard, mixed names.

Only names and shapes are used; no tensor is read. :data:`KINDS` is consulted only after the structure check of a VAE
has failed, so it never changes the answer for a VAE that loads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from vae_lab.errors import MissingVae, MixedNames, NotAnAutoencoder, OtherKind
from vae_lab.formats import TensorInfo, file_name
from vae_lab.state_dict.canonical import Layout

__all__ = ["KINDS", "KINDS_BY_ID", "MIXED_REMEDY", "SHARD_REMEDY", "Kind", "explain", "pixel_model"]

Answer = Literal["model", "pixels", "vae"]
"""Another kind of model, a model that needs no VAE, or another kind of VAE."""

MIXED_REMEDY = "Convert it again from the original file, or download another version."
SHARD_REMEDY = "Use all parts together with their index, or download a version in one file."
_ITS_MODEL = "Use it with its own model. Checkpoints of Stable Diffusion and Flux need another VAE."
_NO_CHANGE = "Do not choose an external VAE for it."
_SHARD = re.compile(r"-0*(\d+)-of-0*(\d+)\.\w+$")


class _Tensors:
    """The tensors of a file, with every number in a name replaced by ``#``."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self.shapes = {name.removeprefix("state_dict."): tuple(info.shape) for name, info in tensors.items()}
        patterns = sorted({re.sub(r"\d+", "#", name) for name in self.shapes})
        self.text = "".join(f"\n.{pattern}\n" for pattern in patterns)

    def has(self, marker: str) -> bool:
        return marker in self.text

    def channels(self, ending: str) -> set[int]:
        """Input channels of the 2-D and 3-D convolutions whose names end so."""
        return {shape[1] for name, shape in self.shapes.items() if f".{name}".endswith(ending) and len(shape) in (4, 5)}


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        id: stable short name.
        answer: what follows for the user.
        title: with its article, such as ``a LoRA``.
        plural: such as ``LoRAs``.
        remedy: what to do, in a sentence.
        markers: parts of names, one of which such a file has. Names begin with a dot, and numbers are ``#``.
        test: says more than names can, or None.
    """

    id: str
    answer: Answer
    title: str
    plural: str
    remedy: str
    markers: tuple[str, ...] = ()
    test: Callable[[_Tensors], bool] | None = None

    def matches(self, tensors: _Tensors) -> bool:
        """Whether a file with these tensors is of this kind."""
        return any(map(tensors.has, self.markers)) or (self.test is not None and self.test(tensors))


_LORA = re.compile(
    r"(?:^|[._])lora[._](?:unet|te\d*|transformer|up|down|A|B|linear_layer|prior)|(?:^|\.)lycoris_|\.(?:hada|lokr|oft)_|"
    r"\.dora_scale$|_lora\."
)
_EMBEDDING_WIDTHS = (768, 1024, 1280, 2048, 4096)


def _is_lora(tensors: _Tensors) -> bool:
    """Most names: a checkpoint with a few stray ones remains a checkpoint."""
    return 2 * sum(bool(_LORA.search(name)) for name in tensors.shapes) > len(tensors.shapes)


def _is_embedding(tensors: _Tensors) -> bool:
    """One vector or a few for each text encoder, named after the word or the encoder."""
    return 0 < len(tensors.shapes) <= 4 and all(
        "." not in name and len(shape) in (1, 2) and shape[-1] in _EMBEDDING_WIDTHS
        for name, shape in tensors.shapes.items()
    )


def _is_approximation(tensors: _Tensors) -> bool:
    """The WebUI's preview network: ``conv1`` to ``conv8``, and nothing else."""
    first = tensors.shapes.get("conv1.weight", ())
    return first[2:] == (7, 7) and all(re.fullmatch(r"conv\d\.(weight|bias)", name) for name in tensors.shapes)


def _is_ltx(tensors: _Tensors) -> bool:
    return 128 in tensors.channels(".decoder.conv_in.conv.weight")


def _is_hunyuan_image(tensors: _Tensors) -> bool:
    return 64 in tensors.channels(".decoder.conv_in.weight")


def _is_video(tensors: _Tensors) -> bool:
    return any(len(shape) == 5 and re.search(r"(^|\.)(en|de)coder\.", name) for name, shape in tensors.shapes.items())


def _is_pixel_unet(tensors: _Tensors) -> bool:
    """A UNet whose input is an image, or an image and a smaller one; latents have 4 channels or more."""
    if tensors.has("\n.down_blocks.#."):
        return tensors.shapes.get("conv_in.weight", ())[1:2] in ((3,), (6,))
    return bool(tensors.channels(".input_blocks.0.0.weight") & {3, 6})


def _is_vq(tensors: _Tensors) -> bool:
    return tensors.has(".quantize.embedding.weight") and (tensors.has(".decoder.") or tensors.has(".encoder."))


KINDS: tuple[Kind, ...] = (
    # --- parts and additions, told by names that nothing else has ---------------------------------------------------
    Kind("lora", "model", "a LoRA", "LoRAs", "It belongs in models/Lora.", test=_is_lora),
    Kind(
        "controlnet", "model", "a ControlNet or T2I-Adapter", "ControlNets", "It belongs in models/ControlNet.",
        (".control_model.", ".input_hint_block.", ".controlnet_", ".zero_convs.", ".lora_controlnet",
         "\n.adapter.body.", "\n.body.#.in_conv."),
    ),
    Kind(
        "ip-adapter", "model", "an IP-Adapter", "IP-Adapters", "It belongs in models/ControlNet.",
        (".ip_adapter.", "\n.image_proj."),
    ),
    Kind(
        "motion-module", "model", "a motion module of AnimateDiff", "motion modules",
        "It belongs in the folder of the AnimateDiff extension.", (".motion_modules.",),
    ),
    Kind(
        "embedding", "model", "a textual inversion embedding", "embeddings", "It belongs in embeddings.",
        (".string_to_param.", "\n.emb_params\n"), _is_embedding,
    ),
    Kind(
        "hypernetwork", "model", "a hypernetwork", "hypernetworks", "It belongs in models/hypernetworks.",
        ("\n.#.#.linear.#.",),
    ),
    Kind(
        "face-restorer", "model", "a face restoration model", "face restoration models",
        "It belongs in models/GFPGAN or models/Codeformer.", (".stylegan_decoder.", ".fuse_convs_dict."),
    ),
    Kind(
        "upscaler", "model", "an upscaler", "upscalers", "It belongs in the folder of its kind, such as models/ESRGAN.",
        ("\n.params_ema.", "\n.params.", "\n.conv_first.", ".RRDB_trunk.", ".RDB#.", ".rdb#.", ".residual_group.",
         ".conv_before_upsample."),
    ),
    # --- other kinds of VAEs ----------------------------------------------------------------------------------------
    Kind(
        "svd-vae", "vae", "the temporal decoder of Stable Video Diffusion", "VAEs of Stable Video Diffusion",
        _ITS_MODEL, (".decoder.time_conv_out.", ".decoder.mid.block_#.time_stack.", ".decoder.mid.block_#.mix_factor",
                     ".decoder.mid_block.resnets.#.spatial_res_block.", ".decoder.conv_out.time_mix_conv."),
    ),
    Kind(
        "wan-vae", "vae", "the VAE of Wan or Qwen-Image", "VAEs of Wan or Qwen-Image", _ITS_MODEL,
        ("coder.middle.#.residual.#.", "coder.mid_block.resnets.#.norm#.gamma"),
    ),
    Kind(
        "mochi-vae", "vae", "the video VAE of Mochi", "video VAEs of Mochi", _ITS_MODEL,
        (".blocks.#.blocks.#.stack.#.", ".layers.#.layers.#.attn_block.", "\n.blocks.#.#.stack.#.",
         "coder.block_in.resnets.#.", "\n.layers.#.stack.#."),
    ),
    Kind(
        "cogvideox-vae", "vae", "the video VAE of CogVideoX", "video VAEs of CogVideoX", _ITS_MODEL,
        (".norm#.conv_y.", ".norm#.norm_layer."),
    ),
    Kind(
        "cosmos-vae", "vae", "the tokenizer of Cosmos", "tokenizers of Cosmos", _ITS_MODEL,
        (".unpatcher#d.", ".patcher#d.", "coder.conv_in.conv_s.", "coder.conv_in.#.conv#d."),
    ),
    Kind(
        "ltx-vae", "vae", "the video VAE of LTX-Video", "video VAEs of LTX-Video", _ITS_MODEL,
        (".per_channel_statistics.", "coder.up_blocks.#.res_blocks.#.", "coder.down_blocks.#.res_blocks.#."), _is_ltx,
    ),
    Kind(
        "allegro-vae", "vae", "the video VAE of Allegro", "video VAEs of Allegro", _ITS_MODEL,
        ("coder.temp_conv_in.", "coder.temp_conv_out."),
    ),
    Kind(
        "hunyuan-video-vae", "vae", "the video VAE of HunyuanVideo", "video VAEs of HunyuanVideo", _ITS_MODEL,
        ("coder.conv_in.conv.weight",),
    ),
    Kind(
        "tiny-video-vae", "vae", "a tiny video VAE (TAEHV)", "tiny video VAEs", _ITS_MODEL,
        ("\n.decoder.#.conv.weight", "\n.encoder.#.conv.weight"),
    ),
    Kind(
        "consistency-decoder", "vae", "OpenAI's consistency decoder", "consistency decoders", _ITS_MODEL,
        (".decoder_unet.", ".embed_image.conv."),
    ),
    Kind(
        "asymmetric-vae", "vae", "an asymmetric VAE (AsymmetricAutoencoderKL)", "asymmetric VAEs",
        "Use it with diffusers, which it was made for. The WebUI cannot load it.", (".condition_encoder.",),
    ),
    Kind(
        "dc-ae", "vae", "a deep compression autoencoder (DC-AE), as in Sana", "deep compression autoencoders",
        _ITS_MODEL, ("coder.down_blocks.#.#.", "coder.up_blocks.#.#.", ".stages.#.op_list."),
    ),
    Kind(
        "stage-a", "vae", "stage A of Stable Cascade", "stages A of Stable Cascade", _ITS_MODEL, (".vquantizer.",)
    ),
    Kind(
        "stage-c", "vae", "the encoder or previewer of Stable Cascade's stage C", "coders of Stable Cascade's stage C",
        _ITS_MODEL, (".backbone.#.#.block.#.", "\n.blocks.#.num_batches_tracked"),
    ),
    Kind("vq", "vae", "a VQ model, as in LDSR", "VQ models", _ITS_MODEL, test=_is_vq),
    Kind(
        "audio-vae", "vae", "an audio VAE", "audio VAEs", _ITS_MODEL,
        ("coder.layers.#.layers.#.beta", "coder.block.#.snake#.", ".vocoder."),
    ),
    Kind("shape-vae", "vae", "the VAE of Hunyuan3D", "VAEs of Hunyuan3D", _ITS_MODEL, (".geo_decoder.",)),
    Kind(
        "hunyuan-image-vae", "vae", "the VAE of HunyuanImage", "VAEs of HunyuanImage", _ITS_MODEL,
        test=_is_hunyuan_image,
    ),
    Kind("video-vae", "vae", "a video VAE", "video VAEs", _ITS_MODEL, test=_is_video),
    Kind(
        "vae-approx", "model", "a preview network (VAE-approx)", "preview networks",
        "It belongs in models/VAE-approx.", test=_is_approximation,
    ),
    # --- whole models -----------------------------------------------------------------------------------------------
    Kind(
        "radiance", "pixels", "Chroma Radiance", "models that need no VAE", _NO_CHANGE,
        (".nerf_blocks.", ".nerf_image_embedder."),
    ),
    Kind(
        "pixel-unet", "pixels", "a UNet for pixels, as in DeepFloyd IF", "models that need no VAE", _NO_CHANGE,
        test=_is_pixel_unet,
    ),
    Kind(
        "diffusion-model", "model", "a diffusion model alone (UNet or transformer)", "diffusion models alone",
        "Use it with a VAE and text encoders of its family.",
        ("\n.down_blocks.#.", "\n.input_blocks.#.", "\n.unet.", "\n.diffusion_model.", "\n.time_embedding.",
         ".double_blocks.#.", ".single_blocks.#.", ".joint_blocks.#.", ".transformer_blocks.#.", ".double_layers.#.",
         ".double_stream_blocks.#.", ".single_transformer_blocks.#.", ".cap_embedder.", ".caption_projection.",
         "\n.patch_embedding.", "\n.x_embedder.", "\n.clip_txt_mapper.", "\n.clip_mapper."),
    ),
    Kind(
        "image-encoder", "model", "an image encoder (CLIP vision)", "image encoders",
        "It belongs in models/clip_vision.", (".vision_model.", "\n.visual."),
    ),
    Kind(
        "text-encoder", "model", "a text encoder", "text encoders", "It belongs in models/text_encoder.",
        (".text_model.", ".encoder.block.#.layer.#.SelfAttention.", ".embed_tokens.", ".token_embedding.",
         ".transformer.resblocks.#.", "\n.transformer.shared.", "\n.bert."),
    ),
)  # fmt: skip
"""Every kind, in the order in which they are tried."""

KINDS_BY_ID: Mapping[str, Kind] = {kind.id: kind for kind in KINDS}


def explain(
    error: NotAnAutoencoder, tensors: Mapping[str, TensorInfo], path: str, layout: Layout | None
) -> NotAnAutoencoder:
    """The error to raise instead of ``error``: what the file is, if that is known.

    Args:
        error: why no VAE can be loaded.
        tensors: of the file.
        path: of the file.
        layout: of the VAE whose structure is wrong; None if none was found.
    """
    part = _SHARD.search(file_name(path))
    if part and int(part[2]) > 1:
        return OtherKind(path, f"part {part[1]} of {part[2]} of a model that is split over several files", "shard")
    view = _Tensors(tensors)
    # What has the first or last layer of a VAE is one, of some kind. A TAESD's numbered layers show less.
    is_vae = layout is not None and layout.naming != "taesd"
    for kind in KINDS:
        # A checkpoint without a VAE may also contain a text encoder, a ControlNet …: it remains a checkpoint.
        whole = not isinstance(error, MissingVae) or kind.answer != "model" or kind.id == "lora"
        if whole and (kind.answer == "vae" or not is_vae) and kind.matches(view):
            return OtherKind(path, _reason(kind), kind.id)
    if layout is not None and layout.mixed:
        return MixedNames(path, f"names of ldm and diffusers are mixed, and neither set is whole ({error.reason})")
    if is_vae and type(error) is NotAnAutoencoder:
        return OtherKind(path, error.reason, "unknown-vae")
    return error


def pixel_model(tensors: Mapping[str, TensorInfo]) -> Kind | None:
    """The kind of a model that needs no VAE, whether or not the file has one; None for other models."""
    view = _Tensors(tensors)
    return next((kind for kind in KINDS if kind.answer == "pixels" and kind.matches(view)), None)


def _reason(kind: Kind) -> str:
    if kind.answer == "vae":
        return f"it is another kind of VAE, {kind.title}"
    if kind.answer == "pixels":
        return f"it needs no VAE, since it is {kind.title}"
    return f"no VAE in it: it is {kind.title}"

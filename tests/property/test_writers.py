"""``bake``, ``extract`` and ``strip`` are right or refuse: all families, prefixes, containers and dtypes that we know.

Either there is one error that names the file, and no file is left; or the new file's VAE is the given one, tensor by
tensor, and everything else is what it was, byte by byte. What must be accepted is computed here, from the case alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.unit.makers import CONTAINERS, diffusers_names, kl_state, prefixed, taesd_state, write
from vae_lab.autoencoders import Autoencoder, autoencoder, open_vae
from vae_lab.autoencoders.family_detection import FamilyEvidence
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.errors import VaeLabError
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.repair import bake, extract, fit, strip

State = dict[str, Tensor]
M = "model.diffusion_model."
DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
    "fp8 e5m2": torch.float8_e5m2,
}
WIDE = "fp32 beyond fp16"
MARK = "decoder.conv_out.bias"  # its first value shows the family, in every precision


def model(layers: dict[str, tuple[int, ...]], others: State | None = None) -> State:
    """A few layers, and tensors of every sort that must not change."""
    odd = {
        f"{M}odd.bf16": torch.arange(6).bfloat16().reshape(2, 3),
        f"{M}odd.fp8": torch.arange(4).to(torch.float8_e5m2),
        f"{M}odd.int": torch.tensor(-7),
        f"{M}odd.bool": torch.tensor([True, False]),
        f"{M}odd.empty": torch.zeros(0, 3),
    }
    return {name: torch.full(shape, 0.5).half() for name, shape in layers.items()} | odd | (others or {})


SD1_TEXT = {"cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.ones(8)}
SDXL_TEXT = {"conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": torch.ones(8)}
UNET = {f"{M}input_blocks.0.0.weight": (8, 4, 3, 3), f"{M}out.2.weight": (4, 8, 3, 3)}
# name -> model, family of its latents ("flux2" is none that we know), prefix that hosts read
MODELS: dict[str, tuple[State, str, str]] = {
    "SD1": (model(UNET, SD1_TEXT), "sd1", "first_stage_model."),
    "SD1 without text encoder": (model(UNET), "sd1", "first_stage_model."),
    "SDXL": (model(UNET | {f"{M}label_emb.0.0.weight": (8, 2816)}, SDXL_TEXT), "sdxl", "first_stage_model."),
    "AuraFlow": (model({"model.double_layers.0.w": (8, 8), "model.init_x_linear.weight": (8, 16)}), "sdxl", "vae."),
    "SD3": (model({f"{M}joint_blocks.0.w": (8, 8)}), "sd3", "first_stage_model."),
    "Flux": (model({f"{M}double_blocks.0.w": (8, 8), f"{M}img_in.weight": (8, 64)}), "flux", "vae."),
    "Flux.2": (
        model({f"{M}double_stream_modulation_img.lin.weight": (8, 8), f"{M}img_in.weight": (8, 128)}), "flux2", "vae.",
    ),
}  # fmt: skip
CHANNELS = {"sd1": 4, "sdxl": 4, "sd3": 16, "flux": 16, "flux2": 32, "taesd": 4}
OWN_PREFIXES = ("first_stage_model.", "vae.", "autoencoder.", "")


def make_vae(family: str) -> State:
    if family == "taesd":
        return taesd_state()
    channels = CHANNELS[family]
    config = KLConfig((32,) * 4, 1, latent_channels=channels, z_channels=channels, use_quant_conv=channels != 16)
    state = kl_state(config, seed=channels)
    state[MARK][0] = list(CHANNELS).index(family) + 1
    return state


VAES = {family: make_vae(family) for family in CHANNELS}


def in_precision(family: str, precision: str) -> State:
    state = {name: value.to(DTYPES.get(precision, torch.float32)) for name, value in VAES[family].items()}
    if precision == WIDE and family != "taesd":
        state["decoder.norm_out.bias"] = state["decoder.norm_out.bias"] + 1e5
    return state


class Case(NamedTuple):
    model: str
    container: str
    own_prefix: str | None
    own_family: str
    own_precision: str
    family: str
    form: str
    precision: str

    @property
    def accepted(self) -> bool:
        """Whether the VAE fits, and does not overflow."""
        wanted = MODELS[self.model][1]
        has_own = self.own_prefix is not None
        fits = self.family == wanted and (not has_own or CHANNELS[self.own_family] == CHANNELS[self.family])
        if wanted == "flux2":  # only known by the VAE that it has, which hosts must be able to read
            fits = fits and has_own and self.own_prefix != ""
        return fits and not (self.precision == WIDE and self.target == torch.float16)

    @property
    def target(self) -> torch.dtype | None:
        """The precision of the VAE before, if it is read; never less than 16 bits."""
        if not self.own_prefix:
            return None
        dtype = DTYPES[self.own_precision]
        return dtype if dtype.itemsize > 1 else torch.float16

    def fitting(self) -> Case:
        """With VAEs of the model's family: at random, most do not fit."""
        wanted = MODELS[self.model][1]
        return self._replace(family=wanted, own_family=wanted)

    def write(self, folder: Path, copies: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """The checkpoint, with more copies of its VAE, and the VAE."""
        own = in_precision(self.own_family, self.own_precision)
        prefixes = {*copies, *(() if self.own_prefix is None else (self.own_prefix,))}
        state = MODELS[self.model][0] | {
            prefix + name: value.clone() for prefix in sorted(prefixes) for name, value in own.items()
        }
        form = "safetensors" if self.family == "taesd" else self.form
        vae = FORMS[form](folder / "vae", in_precision(self.family, self.precision))
        return CONTAINERS[self.container](folder / "model", state), vae


FORMS: dict[str, Callable[[Path, State], Path]] = {
    **CONTAINERS,
    "diffusers": lambda path, state: write(path, diffusers_names(state, 4)),
    "old diffusers": lambda path, state: write(path, diffusers_names(state, 4, old_attention=True)),
    "in a checkpoint": lambda path, state: write(
        path, {f"{M}x": torch.ones(2)} | prefixed("first_stage_model.", state)
    ),
}
COLUMNS = (  # as in Case
    list(MODELS), list(CONTAINERS), [None, *OWN_PREFIXES], [family for family in CHANNELS if family != "taesd"],
    list(DTYPES), list(CHANNELS), list(FORMS), [*DTYPES, WIDE],
)  # fmt: skip


def some_cases(seed: str, number: int) -> Iterator[Case]:
    """Of the product of all columns. Each value comes up equally often; every second VAE is of the model's family."""
    shuffled = random.Random(seed).shuffle
    decks = [(column * number)[:number] for column in COLUMNS]
    for deck in decks:
        shuffled(deck)
    for i, values in enumerate(zip(*decks, strict=True)):
        yield Case(*values).fitting() if i % 2 else Case(*values)


def detected(loaded: Autoencoder, hint: Family | None = None) -> FamilyEvidence:
    """In the place of a decoded chart: the mark in the weights."""
    number = int(loaded.module.get_parameter(MARK)[0].item())
    return FamilyEvidence(FAMILIES.get(list(CHANNELS)[number - 1]), {}, {})


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patched:
        for module in (autoencoder, fit):
            patched.setattr(module, "detect_family", detected)
        patched.setattr(fit, "chart_image", lambda: image)
        yield


def new_file(action: Callable[[Path], None], *sources: Path) -> Path | None:
    """What was written; None if it was refused, in one line that names a file, and nothing was left."""
    out = sources[0].with_name("out.safetensors")
    out.unlink(missing_ok=True)
    before = set(out.parent.iterdir())
    refusal = ""
    try:
        action(out)
    except VaeLabError as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        assert any(str(source) in refusal for source in sources)
        assert set(out.parent.iterdir()) == before
        return None
    assert set(out.parent.iterdir()) == {*before, out}
    return out


def assert_same(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert found[name].flatten().view(torch.uint8).equal(value.flatten().view(torch.uint8)), name


def assert_holds(path: Path, prefix: str, vae: State, others: State) -> None:
    """By our own reader, and by that of hosts."""
    with open_vae(path) as file:
        assert file.layout.prefix == prefix
        assert_same(file.state_dict(), vae)
    assert_same(load_file(path), others | prefixed(prefix, vae))


# Of more cases than these, the tests take minutes: most of it is reading pickles.
examples = pytest.mark.parametrize("number", [10, pytest.param(30, marks=pytest.mark.slow)])


@examples
def test_bake(tmp_path: Path, number: int) -> None:
    for case in some_cases("bake", 2 * number):
        checkpoint, vae = case.write(tmp_path)
        others, _, prefix = MODELS[case.model]
        out = new_file(lambda out, one=checkpoint, other=vae: bake(one, other, out), checkpoint, vae)
        assert (out is not None) == case.accepted, case
        if out:
            state = in_precision(case.family, case.precision)
            wanted = {name: value.to(case.target or value.dtype) for name, value in state.items()}
            assert_holds(out, prefix, wanted, others)


@examples
def test_extract(tmp_path: Path, number: int) -> None:
    for case in some_cases("extract", number):
        checkpoint, vae = case.write(tmp_path)
        out = new_file(lambda out, source=vae: extract(source, out), vae)
        assert out, case
        assert_holds(out, "", in_precision(case.family, case.precision), {})
        out = new_file(lambda out, source=checkpoint: extract(source, out), checkpoint)
        assert (out is not None) == bool(case.own_prefix), case  # hosts read no VAE without prefix
        if out:
            assert_holds(out, "", in_precision(case.own_family, case.own_precision), {})


@examples
def test_strip(tmp_path: Path, number: int) -> None:
    for i, case in enumerate(some_cases("strip", number)):
        copies = OWN_PREFIXES if i % 3 == 0 else ()
        checkpoint, _ = case.write(tmp_path, copies)
        out = new_file(lambda out, source=checkpoint: strip(source, out), checkpoint)
        assert (out is not None) == (bool(copies) or case.own_prefix is not None), case
        if out:
            assert_same(load_file(out), MODELS[case.model][0])

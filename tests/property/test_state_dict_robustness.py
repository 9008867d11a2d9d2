"""For any names and shapes: either a VAE that loads, or one of our errors that names the file."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.makers import F2, diffusers_names, kl_state, taesd_state
from vae_lab.autoencoders.autoencoder import VaeFile
from vae_lab.errors import FileError
from vae_lab.formats import TensorInfo

reproducible = settings(derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

Shapes = dict[str, tuple[int, ...]]

ORIGINALS: list[Shapes] = [
    {name: tuple(tensor.shape) for name, tensor in state.items()}
    for state in (kl_state(F2), diffusers_names(kl_state(F2), levels=2), taesd_state(), taesd_state(encoder=False))
]
BARE_TAESD = {name.split(".", 1)[1]: shape for name, shape in ORIGINALS[3].items()}
PREFIXES = ["", "vae.", "first_stage_model.", "state_dict.", "model.diffusion_model.", "loss.", "taesd_decoder."]

lengths = st.one_of(st.integers(0, 64), st.sampled_from([1 << 20, 1 << 40, (1 << 62) - 1]))
shapes = st.lists(lengths, max_size=6).map(tuple)


def look_at(names: Shapes) -> VaeFile:
    tensors = {name: TensorInfo(name, torch.float32, shape) for name, shape in names.items()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    return VaeFile(SimpleNamespace(path="model.bin", size=size, tensors=tensors, close=lambda: None))  # type: ignore[arg-type]


def assert_vae_or_error_of_ours(names: Shapes) -> None:
    refusal = None
    try:
        vae = look_at(names)
    except FileError as error:
        refusal = str(error)
    if refusal is not None:
        assert refusal.startswith("model.bin: ")
        assert "\n" not in refusal
    else:
        assert vae.latent_channels > 0
        assert set(vae.layout.names.values()) <= set(names)


@st.composite
def damaged(draw: st.DrawFn) -> Shapes:
    """A VAE's names and shapes after a few accidents."""
    names = dict(draw(st.sampled_from([*ORIGINALS, BARE_TAESD])))
    for _ in range(draw(st.integers(0, 4))):
        accident = draw(st.sampled_from(["drop", "reshape", "stretch", "rename", "add"]))
        victim = draw(st.sampled_from(sorted(names))) if names else ""
        if accident == "add" or not names:
            names[draw(st.sampled_from(PREFIXES)) + draw(st.text(max_size=8))] = draw(shapes)
        elif accident == "drop":
            del names[victim]
        elif accident == "reshape":
            names[victim] = draw(shapes)
        elif accident == "stretch":
            shape = list(names[victim])
            if shape:
                shape[draw(st.integers(0, len(shape) - 1))] = draw(lengths)
            names[victim] = tuple(shape)
        else:
            names[victim.replace(".0.", f".{draw(st.integers(0, 99))}.", 1)] = names.pop(victim)
    prefix = draw(st.sampled_from(PREFIXES))
    return {prefix + name: shape for name, shape in names.items()}


@reproducible
@given(damaged())
def test_damaged_vaes(names: Shapes) -> None:
    assert_vae_or_error_of_ours(names)


PIECES = ["encoder", "decoder", "conv_in", "conv_out", "down", "up", "block", "mid", "attn_1", "layers", "0", "1", "2"]
ANY_NAME = st.lists(
    st.sampled_from([*PIECES, "weight", "bias", "conv1", "quant_conv", "post_quant_conv", "٣"]), max_size=6
)


@reproducible
@given(st.dictionaries(ANY_NAME.map(".".join), shapes, max_size=8))
def test_names_put_together_at_random(names: Shapes) -> None:
    assert_vae_or_error_of_ours(names)


def test_undamaged_originals_are_vaes() -> None:
    """Else the properties above would hold for a reader that refuses everything."""
    kinds = [look_at(names).architecture.name for names in (*ORIGINALS, BARE_TAESD)]
    assert kinds == ["AutoencoderKL", "AutoencoderKL", "TAESD", "TAESD", "TAESD"]

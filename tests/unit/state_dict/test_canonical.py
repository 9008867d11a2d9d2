"""Finds the VAE in a file of any layout, and its tensor names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.makers import (
    CONTAINERS,
    F2,
    SD1_TEXT,
    SDXL_TEXT,
    UNET,
    State,
    diffusers_names,
    kl_state,
    prefixed,
    taesd_state,
    write,
    write_zip,
)
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl import KLConfig, config_from_shapes
from vae_lab.autoencoders.kl.module import empty_module
from vae_lab.errors import MalformedFile, MissingVae, NotAnAutoencoder
from vae_lab.formats import TensorInfo, open_weights
from vae_lab.state_dict import Layout, find_vae, read_tensors

LEFTOVERS = {
    "loss.discriminator.main.0.weight": torch.ones(2, 3, 4, 4),
    "loss.logvar": torch.zeros(1),
    "loss.perceptual_loss.net.slice1.0.weight": torch.ones(2, 3, 3, 3),
    "model_ema.decay": torch.tensor(0.999),
    "model_ema.num_updates": torch.tensor(7),
    "model_ema.decoderconv_inweight": torch.ones(32, 4, 3, 3),
}


def layout_of(path: Path) -> Layout:
    with open_weights(path) as file:
        return find_vae(file.tensors, file.path)


def same(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("prefix", ["", "vae.", "module.", "first_stage_model.", "model.first_stage_model."])
def test_vae_is_found_behind_every_prefix_in_every_container(tmp_path: Path, prefix: str, container: str) -> None:
    state = kl_state()
    path = CONTAINERS[container](tmp_path / "any.name", prefixed(prefix, state))
    with open_vae(path) as file:
        assert file.layout.kind == "vae"
        assert file.layout.naming == "ldm"
        assert file.layout.prefix == ("" if container == "safetensors" else "state_dict.") + prefix
        assert same(file.state_dict(), state)


def test_label_names_layout_and_prefix(tmp_path: Path) -> None:
    assert layout_of(write(tmp_path / "a.safetensors", kl_state())).label == "ldm"
    wrapped = prefixed("first_stage_model.", kl_state())
    assert layout_of(write(tmp_path / "b.safetensors", wrapped)).label == "ldm (first_stage_model.)"


@pytest.mark.parametrize("prefix", ["first_stage_model.", "model.first_stage_model.", "vae."])
def test_vae_inside_a_checkpoint(tmp_path: Path, prefix: str) -> None:
    state = kl_state()
    path = write(tmp_path / "checkpoint.safetensors", UNET | SD1_TEXT | prefixed(prefix, state))
    with open_vae(path) as file:
        assert file.layout.kind == "checkpoint"
        assert file.layout.family_hint == "sd1"
        assert same(file.state_dict(), state)


@pytest.mark.parametrize(
    ("rest", "family"),
    [
        (UNET | SD1_TEXT, "sd1"),
        (UNET | SDXL_TEXT, "sdxl"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(1)}, "sd3"),
        ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, "flux"),
        (UNET, None),
    ],
)
def test_rest_of_the_checkpoint_hints_at_the_family(tmp_path: Path, rest: State, family: str | None) -> None:
    path = write(tmp_path / "checkpoint.safetensors", rest | prefixed("first_stage_model.", kl_state()))
    assert layout_of(path).family_hint == family


def test_only_the_vaes_bytes_are_read_out_of_a_checkpoint(tmp_path: Path) -> None:
    state = kl_state()
    unet = {"model.diffusion_model.big.weight": torch.zeros(4 << 20)}
    path = write(tmp_path / "checkpoint.safetensors", unet | prefixed("first_stage_model.", state))
    with open_vae(path) as file:
        file.state_dict()
        vae_bytes = sum(tensor.numel() * 4 for tensor in state.values())
        assert file.weights.bytes_read < vae_bytes + (1 << 20)


def test_checkpoint_with_two_vaes_gives_the_one_that_hosts_load(tmp_path: Path) -> None:
    """Converters that "bake in" a VAE write unprefixed keys next to the old ones; hosts still load the old ones."""
    old, new = kl_state(seed=1), kl_state(seed=2)
    path = write(tmp_path / "checkpoint.safetensors", UNET | new | prefixed("first_stage_model.", old))
    with open_vae(path) as file:
        assert file.layout.prefix == "first_stage_model."
        assert file.layout.other_prefixes == ("",)
        assert same(file.state_dict(), old)


def test_of_two_vaes_in_a_flux_checkpoint_hosts_load_the_other_one(tmp_path: Path) -> None:
    flux = {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}
    copies = prefixed("first_stage_model.", kl_state(seed=1)) | prefixed("vae.", kl_state(seed=2))
    with open_vae(write(tmp_path / "checkpoint.safetensors", flux | copies)) as file:
        assert (file.layout.prefix, file.layout.other_prefixes) == ("vae.", ("first_stage_model.",))


@pytest.mark.parametrize("container", CONTAINERS)
def test_checkpoint_with_nothing_but_an_unprefixed_vae_has_none(tmp_path: Path, container: str) -> None:
    """No host loads unprefixed keys out of a checkpoint: it would keep using the previous checkpoint's VAE."""
    path = CONTAINERS[container](tmp_path / "checkpoint", UNET | SD1_TEXT | kl_state())
    with pytest.raises(MissingVae, match="without prefix") as caught:
        open_vae(path)
    assert "first_stage_model." in str(caught.value)


@pytest.mark.parametrize("old_attention", [False, True], ids=["new", "old"])
def test_diffusers_names(tmp_path: Path, old_attention: bool) -> None:
    config = KLConfig(block_out_channels=(32, 64, 64), layers_per_block=2, attention=frozenset({2}))
    state = kl_state(config)
    path = write(tmp_path / "d.safetensors", diffusers_names(state, levels=3, old_attention=old_attention))
    with open_vae(path) as file:
        assert file.layout.naming == ("diffusers-old" if old_attention else "diffusers")
        assert same(file.state_dict(), state)


def test_diffusers_names_behind_a_prefix(tmp_path: Path) -> None:
    state = kl_state()
    path = write(tmp_path / "d.safetensors", prefixed("vae.", diffusers_names(state, levels=2)))
    with open_vae(path) as file:
        assert file.layout.label == "diffusers (vae.)"
        assert same(file.state_dict(), state)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_leftovers_of_training_are_dropped_and_counted(tmp_path: Path, prefix: str) -> None:
    state = kl_state()
    path = write(tmp_path / "trained.safetensors", prefixed(prefix, state | LEFTOVERS))
    with open_vae(path) as file:
        assert file.layout.leftovers == len(LEFTOVERS)
        assert same(file.state_dict(), state)


@pytest.mark.parametrize("prefix", ["", "taesd_", "state_dict."])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_taesd_of_one_half(tmp_path: Path, half: str, prefix: str) -> None:
    """Published files hold one half, its layers numbered without a prefix; others put ``taesd_decoder.`` before it."""
    state = taesd_state(encoder=half == "encoder", decoder=half == "decoder")
    short = {name.split(".", 1)[1]: tensor for name, tensor in state.items()}
    stored = state if prefix == "taesd_" else prefixed(prefix, short)
    with open_vae(write(tmp_path / "t.safetensors", stored)) as file:
        assert file.layout.naming == "taesd"
        assert file.architecture.name == "TAESD"
        assert same(file.state_dict(), state)


def test_read_tensors_reads_what_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "v.safetensors", kl_state(F2))
    with open_weights(path) as file:
        layout = find_vae(file.tensors, file.path)
        assert list(read_tensors(file, layout, ["decoder.conv_out.bias"])) == ["decoder.conv_out.bias"]


# --- files without a VAE ---------------------------------------------------------------------------------------------


def test_checkpoint_without_vae(tmp_path: Path) -> None:
    path = write(tmp_path / "pruned.safetensors", UNET | SD1_TEXT)
    with pytest.raises(MissingVae, match=r"pruned.safetensors: .*without a VAE .*first_stage_model.decoder.conv_in"):
        open_vae(path)


def test_file_without_vae_says_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    path = write(tmp_path / "other.safetensors", {f"a.b{i}": torch.zeros(1) for i in range(5)})
    with pytest.raises(NotAnAutoencoder) as caught:
        open_vae(path)
    assert type(caught.value) is NotAnAutoencoder
    assert "expected decoder.conv_in.weight (AutoencoderKL)" in caught.value.reason
    assert "it contains a.b0, a.b1, a.b2 and 2 more" in caught.value.reason


def test_file_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(NotAnAutoencoder, match="it contains no tensors"):
        open_vae(path)


def test_video_vae_is_refused_for_what_it_is(tmp_path: Path) -> None:
    """Names as in an AutoencoderKL, convolutions over time as well."""
    video = {
        name: tensor[:, :, None].repeat(1, 1, 3, 1, 1) if tensor.ndim == 4 else tensor
        for name, tensor in kl_state().items()
    }
    with pytest.raises(NotAnAutoencoder, match="video") as caught:
        open_vae(write(tmp_path / "wan.safetensors", video))
    assert "another kind of VAE" in caught.value.reason


def test_name_that_merely_ends_like_the_anchor_is_no_vae(tmp_path: Path) -> None:
    path = write(tmp_path / "other.safetensors", {"my_decoder.conv_in.weight": torch.zeros(32, 4, 3, 3)})
    with pytest.raises(NotAnAutoencoder):
        open_vae(path)


class CountedNames(dict[str, TensorInfo]):
    """Counts how often all names are read."""

    reads = 0

    def __iter__(self) -> Iterator[str]:
        self.reads += 1
        return super().__iter__()

    def items(self) -> Any:
        self.reads += 1
        return super().items()


@pytest.mark.parametrize("name", ["{}.weight", "{}.conv.0.weight", "p{}.decoder.conv_in.weight", "encoder.{}.weight"])
def test_names_are_not_read_once_for_each_name(name: str) -> None:
    infos = (TensorInfo(name.format(i + 1), torch.float32, (1, 1, 1, 1)) for i in range(300))
    tensors = CountedNames({info.name: info for info in infos})
    with suppress(NotAnAutoencoder):
        find_vae(tensors, "x")
    assert tensors.reads < 30


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "safetensors"])
def test_a_vae_must_be_backed_by_the_file(container: str, tmp_path: Path) -> None:
    """A small pickle whose tensors repeat one value describes a VAE that would take minutes to check."""
    state = {
        name: torch.zeros(1).expand(tensor.shape) for name, tensor in empty_module(KLConfig()).state_dict().items()
    }
    with pytest.raises(MalformedFile, match=r"the VAE claims \d+\.\d MB, but the whole file has \d+\.\d kB"):
        open_vae(CONTAINERS[container](tmp_path / "x", state))


def test_a_vae_that_shares_some_weights_is_read(tmp_path: Path) -> None:
    state = kl_state(F2)
    by_shape: dict[torch.Size, torch.Tensor] = {}
    shared = {name: by_shape.setdefault(tensor.shape, tensor) for name, tensor in state.items()}
    with open_vae(write_zip(tmp_path / "x.pt", shared)) as file:
        assert file.state_dict().keys() == state.keys()


def test_levels_with_too_many_blocks_are_no_known_vae() -> None:
    shapes = {"encoder.conv_in.weight": (32, 3, 3, 3), "encoder.conv_out.weight": (8, 32, 3, 3)}
    shapes |= {f"encoder.down.0.block.{i}.conv1.weight": (32, 32, 3, 3) for i in range(33)}
    with pytest.raises(NotAnAutoencoder, match="unknown VAE architecture: 33 residual blocks per level"):
        config_from_shapes(shapes, "x")

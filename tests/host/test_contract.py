"""The WebUI meets the host contract."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.suite import Case, HostContract
from tests.host.webui import WebUI
from vae_lab.samples import build_sample_set

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def misfits(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A VAE of another family and a file that is none, for as long as this module runs."""
    folder = data_dir / "models" / "VAE"
    samples = build_sample_set(tmp_path_factory.mktemp("samples"))
    shutil.copy(samples.sdxl, folder / "xl.safetensors")
    (folder / "broken.safetensors").write_bytes(b"not a VAE at all")
    yield
    (folder / "xl.safetensors").unlink()
    (folder / "broken.safetensors").unlink()


class TestA1111(HostContract):
    @pytest.fixture
    def case(self, webui: WebUI, misfits: None) -> Case:
        from vae_lab.extension import the_host

        host = the_host()
        webui.sd_vae.refresh_vae_list()
        host.refresh()
        webui.generate(batch_size=2)
        return Case(
            host=host,
            reopened=lambda: host,
            generation=host.generations.newest_first()[0].id,
            usable=("first.safetensors", "second.safetensors"),
            refused={"xl.safetensors": "SDXL", "broken.safetensors": "broken.safetensors"},
            families={"xl.safetensors": "sdxl", "broken.safetensors": None},
        )

"""A broken checkpoint, no healthy VAE on the disk, and one click; in a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Keep, Launch
from tests.browser.panel import CheckupPage
from tests.publisher import Publisher, breaks_off_after, refuses
from tests.sample_hosts import GREY
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.samples import SampleSet

pytestmark = pytest.mark.browser

VAE = "published.safetensors"


@pytest.fixture
def host(samples: SampleSet, publisher: Publisher, tmp_path: Path) -> StandaloneHost:
    """A host whose only checkpoint is grey, without any VAE."""
    models = tmp_path / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    shutil.copy(samples.grey_merge, models / "Stable-diffusion" / GREY)
    host = StandaloneHost(Folders.of_models(models, tmp_path / "data"), published=[publisher.publishes()])
    host.inspect(GREY)
    return host


def test_from_no_healthy_vae_to_one_in_use(
    page: Page, launch: Launch, host: StandaloneHost, publisher: Publisher, tmp_path: Path, keep_screenshot: Keep
) -> None:
    checkup = CheckupPage.open(page, launch(host))
    button = page.locator("#vae_lab_checkup_download")
    for fact in (publisher.publishes().address, publisher.publishes().sha256, str(tmp_path / "models" / "VAE"), VAE):
        expect(checkup.remedy).to_contain_text(fact)
    expect(button).to_contain_text(f"Download {VAE} (")
    keep_screenshot(page, "download")
    assert not publisher.asked, "nothing is sent before the click"
    publisher.faults = [refuses(404)]
    checkup.finish(button.click)
    expect(checkup.message).to_contain_text("there is no such file on the server (404)")
    keep_screenshot(page, "download-failed")
    publisher.faults = [breaks_off_after(10**9), breaks_off_after(400_000), refuses(404)]
    checkup.finish(button.click)
    expect(checkup.remedy).to_contain_text("of it are stored from an earlier download")
    checkup.finish(button.click)
    expect(checkup.message).to_contain_text(f"{VAE} was downloaded and checked: Healthy.")
    expect(button).to_be_hidden()
    expect(checkup.remedy).to_contain_text(f"Use {VAE} instead")
    keep_screenshot(page, "downloaded")
    checkup.for_checkpoint.click()
    expect(checkup.said).to_contain_text("Done.")
    expect(checkup.verdict).to_contain_text(f"{VAE} is active")
    assert (tmp_path / "models" / "VAE" / VAE).read_bytes() == publisher.content

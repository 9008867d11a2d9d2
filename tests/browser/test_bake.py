"""Bake on the Checkup page, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Keep, Launch
from tests.browser.panel import CheckupPage, Panel
from tests.sample_hosts import GREY
from vae_lab.host.standalone import StandaloneHost
from vae_lab.service.service import service_of

pytestmark = pytest.mark.browser

SMOOTH, SHARP = "photo-a-smooth.safetensors", "photo-a-sharp.safetensors"


@pytest.fixture
def host(grey_host: StandaloneHost) -> StandaloneHost:
    for name in (GREY, SMOOTH, SHARP):
        grey_host.inspect(name)
    return grey_host


def test_from_a_grey_checkpoint_to_a_healthy_copy(
    page: Page, launch: Launch, host: StandaloneHost, tmp_path: Path, keep_screenshot: Keep
) -> None:
    checkup = CheckupPage.open(page, launch(host))
    expect(checkup.badge).to_contain_text("Broken")
    box = page.locator("#vae_lab_bake")
    file = box.locator("#vae_lab_bake_file").locator("input, textarea")
    box.get_by_text("Bake a VAE into a copy of this checkpoint").click()
    charts = box.locator("figure")
    expect(charts).to_have_count(2)
    expect(charts.first).to_contain_text("Broken: washed out")
    expect(charts.last).to_contain_text("Healthy")
    recommended = host.recommendation()
    assert recommended is not None
    expect(box).to_contain_text(f"Recommended: {recommended.name}")
    other = SHARP if recommended.name == SMOOTH else SMOOTH
    Panel(page).choose("vae_lab_bake_vae", other)
    expect(file).to_have_value(f"grey-{other}")
    expect(box).not_to_contain_text("Recommended:")
    file.fill(GREY)
    checkup.finish(lambda: page.click("#vae_lab_bake_run"))
    expect(checkup.message).to_contain_text("already exists; choose another name")
    expect(file).to_have_value(GREY)
    file.fill("fixed")
    keep_screenshot(page, "bake")
    checkup.finish(lambda: page.click("#vae_lab_bake_run"))
    expect(checkup.message).to_contain_text("fixed.safetensors was written and checked: Healthy.")
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["fixed.safetensors", GREY]
    Panel(page).choose("vae_lab_checkup_file", "fixed.safetensors")
    expect(checkup.badge).to_contain_text("Healthy")
    expect(file).to_have_value(f"fixed-{recommended.name}")
    Panel(page).choose("vae_lab_checkup_file", SMOOTH)
    expect(box).not_to_be_visible()


def test_what_is_chosen_stays_when_the_page_refreshes(page: Page, launch: Launch, host: StandaloneHost) -> None:
    checkup = CheckupPage.open(page, launch(host))
    page.locator("#vae_lab_bake").get_by_text("Bake a VAE into a copy of this checkpoint").click()
    file = page.locator("#vae_lab_bake_file").locator("input, textarea")
    file.fill("mine")
    page.click("#vae_lab_checkup_refresh")
    with service_of(host).runs.one_at_a_time():
        page.click("#vae_lab_bake_run")
        expect(checkup.message).to_contain_text("another task is running")
    expect(file).to_have_value("mine")

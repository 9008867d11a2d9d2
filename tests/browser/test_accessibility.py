"""Every page of the stand-alone app, checked by axe-core: names, roles, contrast, headings, landmarks, targets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Keep, MakeHost, ServeHost
from tests.browser.panel import CheckupPage, LibraryPage, LightTable, RoundTripPage
from tests.browser.test_round_trip_panel import photo  # noqa: F401
from vae_lab.samples import SampleSet
from vae_lab.service.service import service_of

axe = pytest.importorskip("axe_playwright_python.base", reason="needs axe-playwright-python")

pytestmark = pytest.mark.browser

Factory = pytest.TempPathFactory
VAES = ("anime.vae.pt", "photo-b.ckpt")
LOOKS = [(1280, "light"), (400, "dark")]  # a finding depends on the width or on the theme, not on both

# Elements whose markup is gradio's, by the rule that they break.
GRADIOS = {
    # gradio 4: the text field of a menu has the role of a list.
    "aria-allowed-role": "input[role=listbox].border-none",
    # gradio 4, of an image that was dropped: the hidden button behind it, and the image itself.
    "button-name": "#vae_lab_roundtrip_image .upload-container > button.hidden",
    "image-alt": "#vae_lab_roundtrip_image .upload-container img",
}

FINDINGS = """async (gradios) => {
    const found = await axe.run(document, {
        resultTypes: ["violations", "incomplete"], rules: {"target-size": {enabled: true}},
    });
    const lines = (results, isWanted) => results.flatMap(({id, nodes}) => nodes.map((node) => ({id, ...node})))
        .map((node) => ({...node, checks: [...node.any, ...node.all, ...node.none]}))
        .filter(({id, target}) => !gradios[id] || !document.querySelector(target[0]).matches(gradios[id]))
        .filter(isWanted)
        .map(({id, target, checks}) => `${id}: ${target.join(" ")}: ${checks.map(({message}) => message).join("; ")}`);
    // The contrast of text on a gradient cannot be measured, so there must be none.
    const onGradient = ({id, checks}) => id === "color-contrast" &&
        checks.some(({data}) => ["bgGradient", "bgImage"].includes(data?.messageKey));
    return [...lines(found.violations, () => true), ...lines(found.incomplete, onGradient)];
}"""

# Axe-core lets smaller targets pass if there is space around them. The target of a field is its label.
SMALL_TARGETS = """() => [...document.querySelectorAll(".prose :is(button, a, summary, select, input, [role=slider])")]
    .filter((each) => each.checkVisibility({visibilityProperty: true}))
    .map((each) => ({each, box: (each.closest("label") ?? each).getBoundingClientRect()}))
    .filter(({box}) => box.width < 24 || box.height < 24)
    .map(({each, box}) => `${box.width.toFixed(1)} x ${box.height.toFixed(1)}: ${each.outerHTML.slice(0, 150)}`)"""


@pytest.fixture(scope="module")
def url(make_host: MakeHost, serve_host: ServeHost, samples: SampleSet, tmp_path_factory: Factory) -> Iterator[str]:
    """The page of a host with a grey checkpoint in use and few VAEs, all of whose files were scanned."""
    vaes = tmp_path_factory.mktemp("vaes")
    for name in VAES:
        shutil.copy(samples.smooth.parent / name, vaes / name)
    host = make_host(vaes)
    host.select_checkpoint("grey-merge.safetensors")
    service_of(host).scan()
    with serve_host(host) as url:
        yield url


def check(page: Page) -> None:
    """The page as it is now has no finding in any of ``LOOKS``."""
    page.evaluate(axe.AXE_SCRIPT)
    page.add_style_tag(content="* { transition: none !important; }")
    found = []
    for width, theme in LOOKS:
        page.set_viewport_size({"width": width, "height": 1000})
        page.evaluate("isDark => document.body.classList.toggle('dark', isDark)", theme == "dark")
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        lines = page.evaluate(FINDINGS, GRADIOS) + page.evaluate(SMALL_TARGETS)
        found += [f"{width} pixels, {theme}: {line}" for line in lines]
    assert not found, "\n".join(found)


def test_compare(page: Page, url: str, keep_screenshot: Keep) -> None:
    """With the answer, the light table, and the numbers sorted by a column."""
    table = LightTable.open(page, url, *VAES)
    expect(page.locator(".vae-lab-answer:not([data-waiting])")).to_be_visible()
    expect(page.locator(".vae-lab-figure-verdict [data-status]")).to_have_count(3)
    page.locator("#vae_lab_numbers .vae-lab-sort").nth(2).click()
    check(page)
    keep_screenshot(page, "accessibility-compare")
    page.set_viewport_size({"width": 1280, "height": 1000})
    table.press("Difference")
    table.key("h")
    check(page)


def test_round_trip(page: Page, url: str, photo: Path, keep_screenshot: Keep) -> None:  # noqa: F811
    trip = RoundTripPage.open(page, url)
    trip.drop(photo)
    trip.tick_only(*VAES)
    trip.run()
    check(page)
    keep_screenshot(page, "accessibility-roundtrip")


def test_checkup(page: Page, url: str, keep_screenshot: Keep) -> None:
    """With all details open."""
    checkup = CheckupPage.open(page, url)
    expect(checkup.badge).to_contain_text("Broken")
    page.locator("#vae_lab_checkup details").evaluate_all("all => all.forEach(each => (each.open = true))")
    page.locator("#vae_lab_bake > .label-wrap").click()
    expect(page.locator(".vae-lab-bake img").first).to_be_visible()
    check(page)
    keep_screenshot(page, "accessibility-checkup")


def test_library(page: Page, url: str, keep_screenshot: Keep) -> None:
    """With the preview of Fix all."""
    LibraryPage.open(page, url)
    page.click("#vae_lab_library_fix")
    expect(page.locator(".vae-lab-fix-table input")).not_to_have_count(0)
    check(page)
    keep_screenshot(page, "accessibility-library")

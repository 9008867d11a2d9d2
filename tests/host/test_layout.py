"""The WebUI's own pages look as they do without VAE Lab; and ours is in the language that the WebUI is set to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, sync_playwright

from tests.chromium import find_chromium
from tests.host.conftest import ROOT, install_extension
from tests.host.test_server import CHROMIUM_FLAGS, Server, compare_in_tab
from tests.host.webui import CPU_FLAGS

pytestmark = [pytest.mark.host, pytest.mark.browser]

# Not "Extensions", whose list has one more row.
TABS = ("txt2img", "img2img", "Extras", "PNG Info", "Checkpoint Merger", "Train", "Settings")
SHOWN = """() => {
    const found = {};
    for (const element of document.querySelectorAll("gradio-app [id]")) {
        if (/^(component-|range_id_|ms-|svelte)/.test(element.id) || element.offsetParent === null) continue;
        const named = [...document.querySelectorAll(".tab-nav > button")]
            .filter((button) => button.textContent.trim() === "VAE Lab");
        const ours = [...document.querySelectorAll("[id*=vae_lab], [id*=vae-lab], .vae-lab"), ...named];
        const box = element.getBoundingClientRect();
        const style = getComputedStyle(element);
        found[element.id] = {
            x: box.x, width: box.width, height: box.height,
            looks: ["color", "backgroundColor", "font", "padding", "margin", "display"].map((key) => style[key]).join(),
            y: box.y,
            holdsOurs: ours.some((o) => element.contains(o)),
            isOurs: ours.some((o) => o.contains(element)),
            besideOurs: ours.some((o) => o.matches(".vae-lab-from-gallery") && o.parentElement.contains(element)),
            afterOurs: ours.some((o) => o.offsetParent !== null && !element.contains(o) && !o.contains(element)
                && o.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING),
        };
    }
    return found;
}"""
SHIFTS = """() => {
    window.shifts = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
            for (const { node } of entry.sources) window.shifts.push(node?.id || node?.className || String(node));
        }
    }).observe({ type: "layout-shift" });
}"""


@contextmanager
def running(webui: Path, data: Path, request: Any, settings: dict[str, Any]) -> Iterator[Server]:
    """A separate WebUI, until the block ends."""
    (data / "config.json").write_text(json.dumps(settings), encoding="utf8")
    flags = request.config.getoption("--webui-flags").split()
    server = Server(webui, data, flags if torch.cuda.is_available() else [*CPU_FLAGS, *flags])
    try:
        yield server
    finally:
        server.close()


@contextmanager
def browser_page(url: str) -> Iterator[Page]:
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#txt2img_prompt textarea", timeout=60_000)
        page.wait_for_timeout(2000)
        yield page
        page.wait_for_timeout(3000)
        browser.close()
    assert errors == []


def with_models(data: Path, models: Path) -> Path:
    data.mkdir()
    shutil.copytree(models, data / "models")
    return data


def all_tabs(page: Page) -> dict[str, dict[str, Any]]:
    """What is seen of every page of the WebUI: boxes and looks by id."""
    seen = {}
    for tab in TABS:
        page.click(f"#tabs > .tab-nav button:has-text('{tab}')")
        page.wait_for_timeout(700)
        page.evaluate("window.scrollTo(0, 0)")
        seen[tab] = page.evaluate(SHOWN)
    return seen


def test_the_hosts_own_pages_are_as_without_us(webui_dir: Path, data_dir: Path, tmp_path: Path, request) -> None:
    """Every element with a name: as large, at the same place unless ours stands before it, and in the same colours.
    A badge that arrives on a card moves nothing."""
    plain = with_models(tmp_path / "plain", data_dir / "models")
    with running(webui_dir, plain, request, {}) as server, browser_page(server.url) as page:
        without = all_tabs(page)
    ours = with_models(tmp_path / "ours", data_dir / "models")
    install_extension(ours)
    with running(webui_dir, ours, request, {}) as server, browser_page(server.url) as page:
        with_us = all_tabs(page)
        page.click("#tabs > .tab-nav button:has-text('txt2img')")
        page.evaluate(SHIFTS)
        page.click("#txt2img_extra_tabs button:has-text('Checkpoints')")
        page.wait_for_selector("#txt2img_checkpoints_cards .card[data-name=one]")
        page.wait_for_timeout(1500)
        page.evaluate("window.shifts.length = 0")
        server.post("/vae-lab/v1/inspect", {"names": ["without.safetensors"]})
        page.wait_for_selector(".vae-lab-card-badge", timeout=60_000)
        page.wait_for_timeout(1000)
        assert page.evaluate("window.shifts") == []
    for tab in TABS:
        compared = 0
        for name, before in without[tab].items():
            after = with_us[tab].get(name)
            assert after is not None, f"{tab}: {name} is gone"
            if after["holdsOurs"]:
                continue
            compared += 1
            # Our button in the row below a gallery moves the others aside.
            for what in ("width", "height") if after["besideOurs"] else ("x", "width", "height"):
                assert after[what] == pytest.approx(before[what], abs=0.5), f"{tab}: {what} of {name}"
            assert after["looks"] == before["looks"], f"{tab}: {name}"
            if not after["afterOurs"]:
                assert after["y"] == pytest.approx(before["y"], abs=0.5), f"{tab}: {name} has moved"
        assert compared >= 3, f"{tab}: nothing was compared"


def test_the_page_is_chinese_where_the_webui_is(webui_dir: Path, data_dir: Path, tmp_path: Path, request) -> None:
    """No text or tooltip that there is a translation for stays English, also where it comes later than the page."""
    data = with_models(tmp_path / "data", data_dir / "models")
    install_extension(data)
    translations = json.loads((ROOT / "localizations" / "zh_CN.json").read_text(encoding="utf8"))
    english = [text for text, translated in translations.items() if text != translated]
    left_over = """(english) => {
        const known = new Set(english);
        const left = [];
        for (const root of document.querySelectorAll(".vae-lab")) {
            const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) left.push(walk.currentNode.textContent.trim());
            left.push(...[...root.querySelectorAll("[title]")].map((element) => element.title));
        }
        return left.filter((text) => known.has(text));
    }"""
    with running(webui_dir, data, request, {"localization": "zh_CN"}) as server:
        server.txt2img()
        with browser_page(server.url) as page:
            compare_in_tab(page)
            for tab in ("Compare", "Round trip", "Checkup", "Library"):
                page.click(f"#tab_vae_lab .tab-nav button:has-text('{translations[tab]}')")
                page.wait_for_timeout(1500)
                assert page.evaluate(left_over, english) == [], tab
            page.click(f"#tab_vae_lab .tab-nav button:has-text('{translations['Compare']}')")
            shown = page.inner_text("#vae_lab_panel")
            assert translations["Compare"] in shown
            assert translations["Use for this checkpoint"] in shown

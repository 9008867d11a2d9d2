"""Fix all on the Library page, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import THEMES, Keep, Launch
from tests.browser.panel import LibraryPage
from tests.unit import bake_tree, fix_tree
from tests.unit.bake_tree import COPIES, files
from tests.unit.fix_tree import USES, contents
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.service.service import service_of

pytestmark = pytest.mark.browser


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return fix_tree.scanned(tmp_path)


def host_of(models: Path) -> StandaloneHost:
    return StandaloneHost(Folders.of_models(models, models.parent / "data", webui=True))


def section(page: Page) -> Locator:
    return page.locator("#vae_lab_library_fixes").first


def test_dry_run_apply_reload_and_undo(page: Page, launch: Launch, models: Path) -> None:
    before = contents(models)
    host = host_of(models)
    url = launch(host)
    library = LibraryPage.open(page, url)
    page.click("#vae_lab_library_fix")
    fixes = section(page)
    rows = fixes.locator("tbody tr")
    expect(rows).to_have_count(len(USES) + 2)
    expect(fixes.locator("input[type=checkbox]:checked")).to_have_count(len(USES))
    row = rows.filter(has_text="bad-choice.safetensors")
    expect(row).to_contain_text("Broken: washed out")
    expect(row).to_contain_text("plain.safetensors")
    expect(row).to_contain_text("it is healthy and of the SD1 / SD2 family")
    expect(rows.filter(has_text="flux.safetensors")).to_contain_text("Not fixed")
    row.locator("input").uncheck()
    expect(fixes.locator("[data-fix=apply]")).to_have_text("Use these VAEs (6)")
    assert contents(models) == before
    with service_of(host).runs.one_at_a_time():
        fixes.locator("[data-fix=apply]").click()
        expect(library.message).to_contain_text("another task is running")
        expect(fixes.locator("[data-fix=apply]")).to_be_enabled()
        assert contents(models) == before
    row.locator("input").uncheck()
    fixes.locator("[data-fix=apply]").click()
    expect(library.message).to_contain_text("Healthy VAEs chosen for 6 checkpoints.")
    expect(fixes.get_by_role("listitem")).to_have_count(6)
    assert contents(models)["bad-choice.json"] == before["bad-choice.json"]
    assert contents(models) != before
    library = LibraryPage.open(page, url)
    expect(section(page).get_by_role("listitem")).to_have_count(6)
    (models / "Stable-diffusion" / "xl.json").write_text("{}")
    section(page).get_by_role("button", name="Undo all").click()
    expect(library.message).to_contain_text("As before: 5 checkpoints.")
    expect(library.message).to_contain_text("xl.json was changed since, so it stays as it is")
    expect(section(page)).to_be_hidden()
    assert contents(models) == {**before, "xl.json": b"{}"}


def test_bake_reload_and_remove(page: Page, launch: Launch, tmp_path: Path, keep_screenshot: Keep) -> None:
    models = bake_tree.scanned(tmp_path)
    before, host = files(models), host_of(models)
    url = launch(host)
    library = LibraryPage.open(page, url)
    page.click("#vae_lab_library_fix")
    fixes = section(page)
    bake = fixes.locator("[data-fix=bake]")
    expect(bake).to_have_text("Bake new files (2)")
    expect(fixes).to_contain_text(" needed, ")
    keep_screenshot(page, "fixes-bake")
    fixes.locator("tbody tr").filter(has_text="xl.safetensors").locator("input").uncheck()
    expect(bake).to_have_text("Bake new files (1)")
    expect(fixes.locator("[data-fix=apply]")).to_have_text("Use these VAEs (1)")
    with service_of(host).runs.one_at_a_time():
        bake.click()
        expect(library.message).to_contain_text("another task is running")
        assert files(models) == before
    expect(bake).to_have_text("Bake new files (2)")
    fixes.locator("tbody tr").filter(has_text="xl.safetensors").locator("input").uncheck()
    bake.click()
    expect(library.message).to_contain_text("Written: 1 file.")
    expect(library.message).to_contain_text("grey-plain.safetensors was written and checked: Healthy.")
    assert files(models).keys() == before.keys() | {COPIES["deep/grey.safetensors"]}
    assert {name: files(models)[name] for name in before} == before
    expect(page.locator("#vae_lab_library_table").first).to_contain_text("grey-plain.safetensors")
    library = LibraryPage.open(page, url)
    expect(section(page).get_by_role("listitem")).to_have_count(1)
    page.click("#vae_lab_library_fix")
    expect(section(page)).to_contain_text("1 checkpoint with a baked copy already, which are not baked again.")
    expect(section(page).locator("[data-fix=bake]")).to_have_text("Bake new files (1)")
    keep_screenshot(page, "fixes-baked")
    section(page).get_by_role("button", name="Remove these files").click()
    expect(library.message).to_contain_text("Removed: 1 file.")
    assert files(models) == before
    expect(section(page).locator("[data-fix=bake]")).to_have_text("Bake new files (2)")


@pytest.mark.parametrize("theme", THEMES)
def test_nothing_is_cut(page: Page, launch: Launch, models: Path, keep_screenshot: Keep, theme: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 1000})
    LibraryPage.open(page, launch(host_of(models)), theme)
    page.click("#vae_lab_library_fix")
    fixes = section(page)
    expect(fixes.locator("tbody tr")).to_have_count(len(USES) + 2)
    cut = "all => all.filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.innerText)"
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 1000})
        keep_screenshot(page, f"fixes-{width}-{theme}")
        assert fixes.locator("td, th").evaluate_all(cut) == []
        inside = "section => section.getBoundingClientRect().right <= innerWidth"
        assert fixes.evaluate(inside)
    fixes.locator("[data-fix=apply]").click()
    expect(fixes.get_by_role("listitem")).to_have_count(len(USES))
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 1000})
        keep_screenshot(page, f"fixed-{width}-{theme}")

"""A comparison as one HTML file: complete, self-contained, and safe whatever the names are."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from vae_lab.comparison import Comparison, Decoded
from vae_lab.errors import VaeLabError
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.messages import use_language
from vae_lab.service import share
from vae_lab.service.comparisons import StoredComparison
from vae_lab.service.share import share_html

SD1 = FAMILIES["sd1"]
HOSTILE = "</script></style><img src=x onerror=alert(1)>\"' ${x} {{ 7*7 }}.pt"


def pixels(seed: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 24, 32, 3), dtype=np.uint8)


def stored(*results: Decoded, title: str = "A cat") -> StoredComparison:
    latents = torch.zeros(2, 4, 3, 4)
    generation = Generation("g", latents, SD1, title, ("A secret prompt\nSteps: 20",) * 2, "dreams.safetensors")
    return StoredComparison("id", generation, Comparison(SD1, results), "dreams.safetensors")


def two(name: str = "b.pt", **more: object) -> StoredComparison:
    return stored(Decoded("Built-in", pixels(1), 0.5, family=SD1), Decoded(name, pixels(2), 0.7), **more)  # type: ignore[arg-type]


class Page(HTMLParser):
    """The elements of a page with their attributes, and its visible text."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = ""
        self.feed(html.decode("utf8"))
        self.close()

    def handle_starttag(self, tag, attrs):  # type: ignore[no-untyped-def]
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):  # type: ignore[no-untyped-def]
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.elements if each == tag]


def test_the_images_are_in_it_without_loss_and_without_the_prompt() -> None:
    html = share_html(two())
    images = Page(html).all("img")
    assert [image["alt"] for image in images] == [f"{name}, image {i}" for name in ("Built-in", "b.pt") for i in (1, 2)]
    for image, expected in zip(images, [*pixels(1), *pixels(2)], strict=True):
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
            np.testing.assert_array_equal(np.asarray(decoded.convert("RGB")), expected)
    assert b"secret" not in html
    assert "lossless WebP" in " ".join(Page(html).texts)


def test_the_numbers_are_in_it_and_why_a_vae_has_none() -> None:
    refused = Decoded("c.pt", error="c.pt is a VAE for SDXL, the latent is one of SD1 / SD2", family=FAMILIES["sdxl"])
    comparison = two()
    comparison = stored(*comparison.comparison.results, refused)
    text = " ".join(Page(share_html(comparison)).texts)
    for shown in (f"{comparison.measured.of['b.pt'].delta_e:.2f}", "equal", "PSNR", "not used: c.pt is a VAE for SDXL"):
        assert shown in text
    assert "Mean of 2 images" in text


def test_it_is_in_the_language_of_the_page() -> None:
    """With the dictionary for the light table; file names stay as they are."""
    refused = Decoded("Compare", error="not enough memory")
    comparison = stored(*two("Sharpness").comparison.results, refused, title="Compare")
    english = Page(share_html(comparison))
    with use_language("zh_CN"):
        html = share_html(comparison)
    page = Page(html)
    assert [each["lang"] for each in (*english.all("html"), *page.all("html"))] == ["en", "zh-CN"]
    told = " ".join(page.texts)
    for words in ("对比度", "无损 WebP", "未使用", "相同", "来自 dreams.safetensors"):
        assert words in told
    assert not [words for words in ("image", "Mean", "Hover", "not used", "of dreams") if words in told]
    assert [each["data-vae"] for each in page.all("figure")] == ["Built-in", "Sharpness"]
    assert page.texts.count("Compare") == english.texts.count("Compare") == 2
    dictionary = re.search(r"window.localization = (.*);</script>", html.decode("utf8"))
    assert dictionary
    assert json.loads(dictionary[1])["Difference"] == "差异"
    assert b"window.localization" not in share_html(comparison)


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = Page(share_html(two()))
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    policy = next(each["content"] for each in page.all("meta") if "http-equiv" in each)
    assert "default-src 'none'" in (policy or "")
    html = share_html(two()).decode("utf8")
    assert "url(" not in html
    assert "@import url" not in html


def test_every_import_of_a_module_names_one_of_the_modules() -> None:
    html = share_html(two()).decode("utf8")
    match = re.search(r'<script type="importmap"[^>]*>(.*?)</script>', html)
    assert match
    modules = json.loads(match[1])["imports"]
    for address in modules.values():
        source = base64.b64decode(address.partition(",")[2]).decode("utf8")
        imported = re.findall(r'^(?:import|\}) .*from "([^"]+)";$|^import "([^"]+)"', source, re.MULTILINE)
        assert {name for names in imported for name in names if name} <= set(modules)
    assert 'from "light_table/table.mjs"' in html


@pytest.mark.parametrize("name", [HOSTILE, "a\udcff.pt", "-->", "\u202egnp.exe"])
def test_names_are_text_whatever_they_are(name: str) -> None:
    comparison = two(name, title=HOSTILE)
    plain, hostile = Page(share_html(two())), Page(share_html(comparison))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert not any(key.startswith("on") for _, attributes in hostile.elements for key in attributes)
    shown = name.encode("utf8", "backslashreplace").decode("utf8")
    assert hostile.all("figure")[1]["data-vae"] == shown
    assert hostile.texts.count(shown) >= 2, "above the images, and in the table"
    assert HOSTILE in hostile.texts


def test_many_images_are_compressed_and_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "_MAX_LOSSLESS", 4 * 24 * 32 - 1)
    smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None, None], (2, 24, 32, 3)).copy()
    html = share_html(stored(Decoded("Built-in", smooth, 0.5), Decoded("b.pt", smooth, 0.5)))
    page = Page(html)
    assert "WebP of quality 95" in " ".join(page.texts)
    data = (page.all("img")[0]["src"] or "").partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
        apart = np.abs(np.asarray(decoded.convert("RGB")).astype(int) - smooth[0])
    assert 0 < apart.max() <= 12


def test_too_many_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "_MAX_PIXELS", 4 * 24 * 32 - 1)
    with pytest.raises(VaeLabError, match="too large to share in one file .*; compare fewer VAEs"):
        share_html(two())


def test_a_comparison_without_images_can_be_shared() -> None:
    html = share_html(stored(Decoded("Built-in", error="not enough memory")))
    assert "not used: not enough memory" in " ".join(Page(html).texts)

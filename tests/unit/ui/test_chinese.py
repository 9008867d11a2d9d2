"""Every page in Chinese: only names stay in English, and no name is translated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.kl import AutoencoderKL, KLArchitecture, KLConfig
from vae_lab.checkup import Checkup, check_weights, checkup, latent_scale
from vae_lab.checkup.findings import TITLES, Finding
from vae_lab.checkup.half_precision import HalfReading, judge_half
from vae_lab.checkup.judge import judge_probe
from vae_lab.checkup.probe import Probe, read_chart
from vae_lab.comparison import Comparison, Decoded, RoundTrip, RoundTripped
from vae_lab.comparison.round_trip import loss_between
from vae_lab.errors import MissingKeys, MissingVae, MixedNames, NotAnAutoencoder, OtherKind, UnreadableFile
from vae_lab.host.base import MemoryCheckup, VaeEntry
from vae_lab.host.choices import BUILT_IN
from vae_lab.identity import KnownVae, Merge, Parent, PublishedVae
from vae_lab.latents import Generation
from vae_lab.latents.chart import chart_image
from vae_lab.latents.family import FAMILIES
from vae_lab.library import FileRecord, Recommendation
from vae_lab.library import inspect as inspect_module
from vae_lab.library.extraction import Extraction
from vae_lab.library.identical import Copy, IdenticalFiles
from vae_lab.library.inventory import LibraryRow, Overview, ScanSummary, VaePage, VaeRow
from vae_lab.library.links import Replacement
from vae_lab.library.loading import loading_findings, name_findings
from vae_lab.library.record import Depth
from vae_lab.library.remedies import Remedy
from vae_lab.messages import text, translated, use_language
from vae_lab.service.bake_all import BakeAllPlan, BakeAllResult, PlannedBake, Room, UndoneBakes
from vae_lab.service.comparisons import StoredComparison
from vae_lab.service.dedupe import DedupePlan, DedupeResult, UndoneLinks
from vae_lab.service.downloads import Downloaded, DownloadPlan
from vae_lab.service.extracts import Extracted, ExtractPlan, ExtractResult
from vae_lab.service.fixes import FixPlan, FixResult, UndoneFixes
from vae_lab.service.round_trips import StoredRoundTrip
from vae_lab.state_dict import Layout, LostData
from vae_lab.state_dict.kinds import KINDS, _reason
from vae_lab.ui.views import checkup as checkup_views
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import downloads as download_views
from vae_lab.ui.views import fixes as fix_views
from vae_lab.ui.views import library as library_views
from vae_lab.ui.views import round_trip as round_trip_views
from vae_lab.ui.views import sources as source_views
from vae_lab.ui.views import vae_files as file_views
from vae_lab.ui.views.numbers import numbers

SD1, SDXL = FAMILIES["sd1"], FAMILIES["sdxl"]
NAMES = (
    "dreams.safetensors",
    "anime-a.vae.pt",
    "grey_b.ckpt",
    "Compare",
    "A cat, masterpiece",
    "Steps: 20",
    "decoder.conv_in.weight",
)
# Units, names of formats, parameters and programs, and words that Chinese users know in English.
INTERNATIONAL = (
    "VAE", "VAEs", "SDXL", "SD", "PSNR", "SSIM", "CIEDE", "RGB", "NaN", "LoRA", "WebUI", "Lab", "Built-in", "Automatic",
    "MB", "GB", "kB", "dB", "bytes", "fp", "ldm", "first_stage_model", "img", "txt", "no-half-vae", "JSONL", "CSV",
    "HTML", "GIF", "WebP", "L", "C", "s", "x", "ab", "deadbeefde", "safetensors", "mse", "ft", "fix", "sdxl", "vae",
    "AutoencoderKL", "bfloat", "torch", "JSON", "E", "sd-vae-ft-mse", "Flux", "TAESD", "Stable", "Diffusion", "x4",
    "SD3", "A", "Forge", "bf", "vae-in-bf", "vae-in-fp", "ComfyUI", "lab", "bake", "extract", "download", "CHECKPOINT",
    "NEW", "o", "vae-lab",
    "module", "first_stage_model.", "-o", "time-limit", "pickle", "ckpt", "a", "pt",
    # kinds of files, the programs and models that they belong to, and the WebUI's folders
    "Allegro", "AnimateDiff", "AsymmetricAutoencoderKL", "CLIP", "Cascade", "Chroma", "Codeformer", "CogVideoX",
    "ControlNet", "Cosmos", "DC-AE", "DeepFloyd", "ESRGAN", "GFPGAN", "Hunyuan3D", "HunyuanImage", "HunyuanVideo", "IF",
    "IP-Adapter", "LDSR", "LTX-Video", "Lora", "Mochi", "OpenAI", "Qwen-Image", "Radiance", "Sana", "T2I-Adapter",
    "TAEHV", "Transformer", "UNet", "VAE-approx", "VQ", "Video", "Wan", "clip_vision", "diffusers", "embeddings",
    "SHA-", "extract", "https", "hypernetworks", "models", "text_encoder", "vae-lab", "vision",
)  # fmt: skip


def visible(html: str) -> list[str]:
    """Texts, titles, and what screen readers say."""
    html = html.replace("<wbr>", "")
    texts = re.findall(r">([^<]+)<", re.sub(r"</?(?:b|em)>", "", html))
    texts += re.findall(r' (?:alt|title|aria-label)="([^"]*)"', html)
    return list(map(unescape, texts))


def english_in(html: str) -> list[str]:
    found = []
    for shown in visible(html):
        rest = re.sub("|".join(map(re.escape, NAMES)), "", shown)
        words = [
            word
            for word in re.findall(r"[A-Za-z][\w-]*", rest, re.ASCII)
            if word.rstrip("0123456789") not in INTERNATIONAL
        ]
        found += [shown] if words else []
    return found


def pixels(level: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(level).integers(0, 256, (batch, 16, 16, 3), dtype=np.uint8)


def a_comparison() -> StoredComparison:
    results = (
        Decoded("Built-in", pixels(1, 6), 0.5, family=SD1),
        Decoded(NAMES[0], pixels(2, 6), 0.7, in_strips=True),
        Decoded(NAMES[1], pixels(1, 6), 0.2, finite=False),
        Decoded("Compare", error="Compare is a VAE for SDXL, but the latents are SD1 / SD2", family=SDXL),
    )
    latents = torch.zeros(6, 4, 2, 2)
    generation = Generation("g", latents, SD1, "A cat, masterpiece", ("A cat, masterpiece\nSteps: 20",), NAMES[2])
    return StoredComparison("id", generation, Comparison(SD1, results, cancelled=True), NAMES[2])


def a_round_trip() -> StoredRoundTrip:
    image = pixels(3)[0]
    loss = loss_between(image, pixels(4)[0])
    results = (
        RoundTripped("Built-in", torch.zeros(1, 4, 2, 2), image, loss, family=SD1, in_strips=True),
        RoundTripped(NAMES[0], torch.zeros(1, 4, 2, 2), image, loss, family=SD1),
        RoundTripped(NAMES[1], error="unknown VAE architecture"),
    )
    remarks = ("downscaled from 99 x 99 to 16 x 16", "cropped to 16 x 8, multiples of 8")
    return StoredRoundTrip("id", RoundTrip(image, results), NAMES[2], remarks)


def kl(**config: object) -> Autoencoder:
    module = AutoencoderKL(KLConfig(**{"block_out_channels": (32,) * 4, "layers_per_block": 1, **config}))  # type: ignore[arg-type]
    return Autoencoder("x", "", KLArchitecture(), module, None, module.config.latent_channels)


def charts() -> Iterator[Probe]:
    """Grey, paler, paler by the encoder, exaggerated, off-colour, noisy, flat, black, and not finite."""
    chart = chart_image()
    noise = torch.rand(chart.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    good, grey, pale = (read_chart(0.5 + k * (chart - 0.5)) for k in (1.0, 0.2, 0.8))
    slightly = read_chart(0.5 + 0.91 * (chart - 0.5))
    yield Probe(SD1, good, good, 7e4)
    yield from (Probe(SD1, reading, None) for reading in (grey, pale))
    yield from (Probe(SD1, good, reading) for reading in (grey, pale))
    yield Probe(None, None, grey)
    yield from (Probe(SD1, slightly, None), Probe(SD1, good, slightly))
    for wrong in (
        1.8 * (chart - 0.5) + 0.5, chart.flip(1), chart + noise, chart * 0 + 0.5 + noise, chart * 0 + 0.5, chart * 0,
        chart * torch.nan,
    ):  # fmt: skip
        yield Probe(SD1, read_chart(wrong), None)


def half_precision() -> Iterator[Finding]:
    """Every fault in fp16 with every outcome in bf16, near the limit, and not measured."""
    fails = HalfReading(decoder_delta_e=5.0, decoder=0.0)
    for fp16 in (HalfReading(1.0), HalfReading(0.5), HalfReading(0.0, 1.0, 0.1), fails):
        for bf16 in (HalfReading(0.0, 0.0, 0.2, 0.1), fails):
            yield judge_half(1e5, fp16, bf16)  # type: ignore[misc]
    for fp16 in (HalfReading(0.0), HalfReading()):
        yield judge_half(7e4, fp16, None)  # type: ignore[misc]


def reports() -> dict[str, FileRecord]:
    """One for every finding that a probe, a file and its history give."""
    checkups = [
        Checkup("sd1", judge_probe(probe), checkup._numbers(probe), checkup._charts(probe)) for probe in charts()
    ]
    checkups += [Checkup("sd1", (finding,)) for finding in half_precision()]
    checkups += [
        Checkup("", (latent_scale._other_scale(latent_scale._Fit(SD1, 0.9, 2.0, 0.1)),)),
        Checkup("", (checkup._uncertain_family(16),)),
        *map(
            check_weights, (kl(block_out_channels=(32, 32)), kl(latent_channels=32, z_channels=32), kl(decoder=False))
        ),
        Checkup("sd1", (checkup._wrong_family(SD1, SDXL, {"sd1": 0.9}),)),
    ]
    empty = kl(block_out_channels=(32, 32))
    empty.module.load_state_dict({name: torch.zeros_like(value) for name, value in empty.module.state_dict().items()})
    checkups.append(check_weights(empty))
    found = {
        f"{i} {NAMES[0]}": FileRecord(NAMES[0], kind="checkpoint", checkup=checkup)
        for i, checkup in enumerate(checkups)
    }
    known = KnownVae(NAMES[1], (), "sd1", "B", match="hint")
    full = FileRecord(
        NAMES[0], kind="vae", layout="ldm (first_stage_model.)", family_id="sd1", dtype="fp16",
        fingerprint="deadbeef" * 8, identity=known, checkup=checkups[0], bytes_read=10**6, seconds=1.5,
    )  # fmt: skip
    parents = (Parent(NAMES[0], 0.8), Parent(NAMES[1], 0.2))
    for i, record in enumerate((full, replace(full, checkup=checkups[1]), replace(full, depth=Depth.CHECKED))):
        for relatives in (True, False):
            found[f"{i}{int(relatives)}. {NAMES[1]}"] = record.with_merge(Merge(parents, 1e-5, relatives))
    found[f"2. {NAMES[1]}"] = full.with_merge(Merge(parents, 1e-5, relatives=True, direction="open"))
    errors = (
        MissingVae(NAMES[0], "a checkpoint without a VAE (found ab)"),
        MissingKeys(NAMES[0], "the VAE is incomplete: decoder.conv_in.weight is missing"),
        NotAnAutoencoder(NAMES[0], "unknown VAE architecture"),
        MixedNames(
            NAMES[0],
            "names of ldm and diffusers are mixed, and neither set is whole "
            "(the VAE is incomplete: decoder.conv_in.weight is missing)",
        ),
        OtherKind(NAMES[0], "unknown VAE architecture", "unknown-vae"),
        OtherKind(NAMES[0], "part 1 of 3 of a model that is split over several files", "shard"),
        *(OtherKind(NAMES[0], _reason(kind), kind.id) for kind in KINDS),
        UnreadableFile(NAMES[0], "the file is empty (0 bytes)"),
        UnreadableFile("https://x/y", "neither safetensors nor a torch checkpoint"),
    )
    for i, error in enumerate(errors):
        finding = inspect_module._finding_of(error)
        found[f"{i} {NAMES[2]}"] = FileRecord(NAMES[0], file_findings=(finding,))
    for step in ("reading the file", "waiting for the server", "decoding the chart", "looking for missing parts"):
        reason = f"not finished in 900 s; it was stopped while {step}"
        found[f"{600 + len(found)} {NAMES[1]}"] = inspect_module.not_finished(NAMES[0], reason)
    for half, kind in (("decoder", "checkpoint"), ("encoder", "vae")):
        file = SimpleNamespace(half=half, layout=SimpleNamespace(kind=kind))
        found[f"{400 + len(found)} {NAMES[0]}"] = FileRecord(NAMES[0], file_findings=(inspect_module._half(file),))  # type: ignore[arg-type]
    layout = Layout("checkpoint", "ldm", "module.", {"a.attn_1.q.weight": "q.weight"}, other_prefixes=("vae.",))
    tensors = {"q.weight": SimpleNamespace(shape=(4, 4)), "model.diffusion_model.input_blocks.0.weight": None}
    for kind in ("checkpoint", "vae"):
        file = SimpleNamespace(layout=replace(layout, kind=kind), weights=SimpleNamespace(tensors=tensors))
        findings = loading_findings(file)  # type: ignore[arg-type]
        found[f"{500 + len(found)} {NAMES[0]}"] = FileRecord(NAMES[0], file_findings=findings)
    for container, name in (("safetensors", "a.ckpt"), ("torch-zip", "a.safetensors")):
        findings = name_findings(SimpleNamespace(container=container, path=name), "vae")  # type: ignore[arg-type]
        found[f"{500 + len(found)} {NAMES[0]}"] = FileRecord(NAMES[0], file_findings=findings)
    problem = "the VAE's weights are not finite: decoder.conv_in.weight has NaN or infinite values"
    for kind in ("checkpoint", "vae"):
        mixed = inspect_module._mixed_names(SimpleNamespace(layout=SimpleNamespace(kind=kind)))  # type: ignore[arg-type]
        found[f"{500 + len(found)} {NAMES[0]}"] = FileRecord(NAMES[0], file_findings=(mixed,))
    for only_encoder in (True, False):
        finding = inspect_module._not_finite(problem, only_encoder=only_encoder)
        found[f"{300 + only_encoder} {NAMES[0]}"] = FileRecord(NAMES[0], file_findings=(finding,))
    for i, (path, value, copy) in enumerate(
        ((NAMES[0], bytes(2), None), (NAMES[0], b"ab", None), ("https://x/y", b"", (8, 4104)))
    ):
        lost = LostData(4096, 8192, "decoder.conv_in.weight", value, copy)
        found[f"{i}: {NAMES[1]}"] = FileRecord(NAMES[0], file_findings=(inspect_module._lost_data([lost], path),))
    return found


def library_pages() -> Iterator[str]:
    counts = {
        "unreadable": 1,
        "broken": 2,
        "missing": 1,
        "suspect": 1,
        "not-checked": 1,
        "unchecked": 1,
        "healthy": 1200,
        "no-vae": 30,
    }
    full = Overview(1300, counts, groups=3, copies=2, freeable_bytes=10**9)
    overviews = (
        Overview(), Overview(5), full, Overview(3, {"healthy": 3}), Overview(3, {"healthy": 3}, groups=1),
        Overview(3, {"healthy": 3}, groups=2), Overview(3, {"healthy": 3}, groups=1, copies=1),
    )  # fmt: skip
    yield from map(library_views.overview, overviews)
    for complete, read in ((True, 0), (True, 5), (False, 3), (False, 0)):
        yield library_views.scanned(ScanSummary(full, complete, 5, read, 10**6, 1.5))
    yield library_views.scanned(ScanSummary(Overview(), True, 0, 0, 0, 0.0))
    rows = (
        LibraryRow(NAMES[0], f"/{NAMES[0]}", "unchecked", "vae", 10**6),
        LibraryRow(
            NAMES[1], f"/{NAMES[1]}", "broken", "checkpoint", 10**9, "SDXL",
            "possibly anime-a.vae.pt (a hint from its weights)", NAMES[:2], 2, NAMES[:2], 1, NAMES[:1], 0,
            False, f"0.8 {NAMES[0]}", "Washed out",
            "Images are slightly paler than they should be.", NAMES[1], NAMES[2],
        ),
        LibraryRow(NAMES[2], f"/{NAMES[2]}", "healthy", contains=NAMES[:1]),
        LibraryRow(NAMES[2], f"/{NAMES[2]}", "healthy", same_as=NAMES[:1]),
    )  # fmt: skip
    vaes = (*map(VaeRow, rows), VaeRow(rows[0], rows[1:], 99, "ab"))
    yield library_views.table(VaePage(vaes, 3, 2, 0), full)
    yield library_views.table(VaePage((), 0, 1, 0), full)
    yield from (library_views.position(VaePage(vaes, 3, pages, 0)) for pages in (1, 2))
    yield library_views.downloads(full)


def fix_pages() -> Iterator[str]:
    reasons = (
        "it is healthy and of the SD1 / SD2 family",
        "it is not known which family of VAEs its model needs",
        "no VAE in your folders is known to be healthy and of the Flux family",
        "no VAE in your folders is known to be healthy and of the SDXL family; "
        f"{NAMES[0]} can be downloaded: on its Checkup page, or with vae-lab download",
        f"no healthy VAE of the SDXL family can be used for it ({NAMES[0]})",
        f"{NAMES[0]} also holds the choice for {NAMES[1]}, which must stay as it is",
    )
    remedies = [
        Remedy(
            NAMES[2],
            "broken",
            "Washed out",
            "Images are slightly paler than they should be.",
            BUILT_IN,
            "none",
            "",
            reason,
        )
        for reason in reasons[1:]
    ]
    remedies += [Remedy(NAMES[1], "missing", "No VAE inside", "", NAMES[2], "use", NAMES[0], reasons[0])]
    remedies += [Remedy(NAMES[1], "missing", "No VAE inside", "", NAMES[2], "keep", "", "")]
    changes = [(NAMES[0], NAMES[1])] * 2
    bakes = [PlannedBake(NAMES[1], NAMES[0], NAMES[2], 10**9)]
    written = [(NAMES[0], NAMES[1])]
    yield fix_views.plan(
        FixPlan(remedies, 2, changes, f"{NAMES[0]} is chosen for every checkpoint and takes precedence."),
        BakeAllPlan(bakes, [Room(NAMES[0], 10**9, 10**8)], written, written),
    )
    yield from (fix_views.written(written * count) for count in (1, 2))
    records = [(NAMES[1], Path(NAMES[0]), record) for record in reports().values()]
    failed = [(NAMES[2], "the file is empty (0 bytes)")]
    yield from (fix_views.baked(BakeAllResult(records, failed, cancelled=cancelled)) for cancelled in (True, False))
    reasons = ("it was changed since, so it stays", "it is gone")
    yield fix_views.removed(UndoneBakes([NAMES[0]], [(NAMES[1], reason) for reason in reasons]))
    yield views.alert(f"{NAMES[0]}: not enough disk space: 2.10 GB needed, 1.00 GB free; choose fewer checkpoints")
    yield fix_views.plan(FixPlan(()), BakeAllPlan(()))
    failures = [(NAMES[0], f"{NAMES[1]} was changed since, so it stays as it is")]
    yield fix_views.done(FixResult(changes[:1], ()))
    yield fix_views.undone(UndoneFixes([NAMES[0]] * 2, failures))


def vae_file_pages() -> Iterator[str]:
    reasons = ("it is broken", f"it is already in {NAMES[0]}")
    rows = [Extraction(NAMES[2], (NAMES[0],) * i, "broken", "Washed out", "fp16", "", 0, reasons[i]) for i in (0, 1)]
    rows += [Extraction(NAMES[1], NAMES[:i], "healthy", "", "fp32", NAMES[0], 10**8) for i in (1, 2)]
    yield file_views.extractions(ExtractPlan(Path("Compare"), rows, 2, 1, 10**9))
    yield file_views.extractions(ExtractPlan(Path("Compare"), ()))
    replacement = Replacement(NAMES[0], NAMES[1], 10**8, "0" * 64, 0, 0o644, 1, ".part")
    outside = "it lies outside of the folder, behind a symbolic link"
    links = "it has hard links elsewhere, so replacing it would free nothing"
    system, rights = "its copies are on another file system", "it has another owner or other permissions"
    skipped = [(NAMES[1], why) for why in (outside, links, system, rights, "it belongs to another user")]
    found = IdenticalFiles([Copy(NAMES[0], NAMES[1], replacement)], skipped, 2, 10**8)
    yield file_views.copies(DedupePlan(found, [NAMES[:2]], 1, [(NAMES[0], NAMES[1])]))
    yield file_views.copies(DedupePlan(IdenticalFiles()))
    changed = "it was changed in the meantime, so it was not replaced"
    yield file_views.deduped(DedupeResult([(NAMES[0], NAMES[1])], 0, 10**8, [(NAMES[2], changed)], cancelled=True))
    yield file_views.undone(
        UndoneLinks([NAMES[0]], [(NAMES[1], f"{NAMES[1]} was changed since, so it stays as it is")])
    )
    written = Extracted(NAMES[2], Path(NAMES[0]), FileRecord(NAMES[0]))
    yield file_views.extracted(ExtractResult([written] * 2, [(NAMES[1], "the file is empty (0 bytes)")]))


def comparison_pages() -> Iterator[str]:
    comparison = a_comparison()
    yield from (views.results(comparison), views.summary(comparison), numbers(comparison), views.guide())
    yield from (views.built_in(NAMES[0]), views.built_in("", only=True), views.latent_card(comparison.generation))
    yield views.latent_card(Generation("g", torch.zeros(1, 16, 2, 2), FAMILIES["sd3"]))
    yield views.identified([VaeEntry("Compare", "/a", SD1), VaeEntry(NAMES[0], "/b", None, "unknown VAE architecture")])
    yield views.deciding(f"{NAMES[0]}: chosen for {NAMES[2]}.")
    yield views.deciding(
        f"{BUILT_IN}: no other VAE is chosen. This choice is refused: {NAMES[0]}: chosen for every checkpoint. "
        f"The reason is: {NAMES[0]} is a VAE for SDXL, {NAMES[2]} is SD1 / SD2."
    )
    yield views.deciding(f"{BUILT_IN}: still in memory. Not loaded: {NAMES[0]}: Settings > VAE > SD VAE.")
    yield views.note(
        f"{NAMES[0]}: chosen for every checkpoint. This is not saved and holds until VAE Lab is closed: {NAMES[1]}."
    )
    yield views.alert(f"The image was decoded by {NAMES[1]} (0123456789), which is not among your VAEs")
    yield views.alert(f"no VAE named {NAMES[0]}; did you mean {NAMES[1]}?")
    yield views.alert("another task is running; wait for it or cancel it")
    yield views.alert("no VAE named Compare; available: Compare, grey_b.ckpt")
    yield views.note(f"{NAMES[0]}: chosen for every checkpoint.", undo_id="u1")
    generation = comparison.generation
    yield source_views.thumbnails([generation] * 30)
    yield from (source_views.save_link(generation), source_views.loaded(generation, NAMES[0]))
    yield source_views.encoded(generation, NAMES[0], ["cropped to 16 x 8, multiples of 8"])


def round_trip_pages() -> Iterator[str]:
    trip = a_round_trip()
    yield from (round_trip_views.begin(), round_trip_views.results(trip), round_trip_views.summary(trip))


def checkup_pages() -> Iterator[str]:
    known = reports()
    yield from (checkup_views.unchecked(""), checkup_views.unchecked(NAMES[0]))
    for name, report in known.items():
        yield from (
            checkup_views.verdict(name, report, False),
            checkup_views.charts(report),
            checkup_views.details(report),
        )
        yield checkup_views.checked({name: report}, 1)
    yield checkup_views.overview([*known, NAMES[2]], known, NAMES[2])
    yield from (
        checkup_views.checked(known, len(known)),
        checkup_views.checked(known, 99),
        checkup_views.remedied(NAMES[0]),
    )
    yield from map(checkup_views.aside, map(checkup_views.kind_to_get, (None, SD1, FAMILIES["sd3"])))
    published = PublishedVae("one", "sd1", NAMES[0], f"https://{NAMES[0]}", 10**8, "0" * 64)
    yield from (
        download_views.offered(DownloadPlan(published, Path(NAMES[0]), needed, 10)) for needed in (10**8, 10**7)
    )
    yield from (download_views.downloaded(Downloaded(Path(name), name, known[name])) for name in known)
    yield checkup_views.recommended(Recommendation(NAMES[0], "it is healthy and of the SDXL family"))
    reason = "it is your preferred VAE (Settings > VAE Lab > External VAE), healthy and of the SDXL family"
    yield checkup_views.recommended(Recommendation("Compare", reason))
    yield checkup_views.used_instead(f"{NAMES[0]}: chosen for every checkpoint.")
    yield checkup_views.in_memory(MemoryCheckup(next(r.checkup for r in known.values() if r.checkup), "fp16", NAMES[0]))


@pytest.mark.parametrize(
    "pages", [comparison_pages, round_trip_pages, checkup_pages, library_pages, fix_pages, vae_file_pages]
)
def test_no_english_is_left(pages) -> None:  # type: ignore[no-untyped-def]
    with use_language("zh_CN"):
        assert [sentence for html in pages() for sentence in english_in(html)] == []


def test_the_reports_have_every_finding_but_those_of_published_files() -> None:
    codes = {finding.code for report in reports().values() for finding in report.verdict.findings}
    assert codes == TITLES.keys() - {"known-bad", "bad-shape"}


def test_names_are_never_translated() -> None:
    """Not even if a name equals one of our texts."""
    with use_language("zh_CN"):
        html = views.results(a_comparison())
        assert 'data-vae="Compare"' in html
        assert '<span class="vae-lab-name">Compare</span>' in html
        assert "Compare 是 SDXL 的 VAE" in html
        assert translated("Compare: chosen for Compare.") == "Compare: 为 Compare 选择。"
        assert text("Use {vae} always", vae="Compare") == "始终使用 Compare"


@pytest.mark.parametrize("language", ["", "None", "xx_YY", "../zh_CN"])
def test_without_a_catalogue_everything_is_english(language: str) -> None:
    with use_language(language):
        assert "1 VAE could not be used." in views.summary(a_comparison())
        assert translated("Washed out") == "Washed out"


def test_the_language_ends_with_its_context() -> None:
    with use_language("zh_CN"):
        assert translated("Washed out") != "Washed out"
    assert translated("Washed out") == "Washed out"


def test_values_cannot_smuggle_markup_into_a_translation() -> None:
    with use_language("zh_CN"):
        assert "<i>" not in checkup_views.remedied("<i>")
        assert "<i>" not in views.alert("no VAE named <i>; available: <i>")
        assert "{seconds}" in views.alert("no VAE named {seconds}; available: {0.__class__}")

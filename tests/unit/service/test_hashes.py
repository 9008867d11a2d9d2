"""Hashes are computed in the background, and tell which VAE decoded someone else's image."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from tests.unit.makers import F2, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.host.infotext import VaeHash, vae_hash, with_override
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.identity import short
from vae_lab.library import Scan
from vae_lab.service.service import Service, service_of
from vae_lab.ui.views.sources import vae_found

LONG = 60.0  # seconds, for a thread that takes none
MSE = "735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75"
ANIME2 = "df3c506e51"


@pytest.fixture
def host(tmp_path: Path) -> StandaloneHost:
    """Two VAEs, and a checkpoint with a third one."""
    (tmp_path / "VAE" / "sub").mkdir(parents=True)
    (tmp_path / "Stable-diffusion").mkdir()
    write(tmp_path / "VAE" / "sub" / "kl.safetensors", kl_state(F2, 1))
    write(tmp_path / "VAE" / "other.pt", kl_state(F2, 2))
    built_in = prefixed("first_stage_model.", kl_state(F2, 3))
    write(tmp_path / "Stable-diffusion" / "m.safetensors", UNET | SD1_TEXT | built_in)
    return StandaloneHost(Folders.of_models(tmp_path, tmp_path / "data"))


@pytest.fixture
def service(host: StandaloneHost) -> Service:
    """Its service, with everything hashed."""
    service = service_of(host)
    service.hashes.start()
    assert service.hashes.wait(LONG)
    return service


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def infotext(*parameters: str) -> str:
    return ", ".join(("a cat, VAE hash: none\nSteps: 20", "Sampler: Euler", "Seed: 1", *parameters))


def said(service: Service, *parameters: str) -> str:
    return " ".join(vae_found(service.hashes.find(infotext(*parameters))))


# --- what a text names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        (["VAE hash: 735E4C3A44", "VAE: x.pt"], VaeHash("735e4c3a44", False, "x.pt")),
        (['VAE: "a, b.pt"', f"VAE hash: {MSE}"], VaeHash(MSE, False, "a, b.pt")),
        (["VAE hash: 735e4c3a44", "VAE Lab override: y.pt", "VAE Lab override hash: 0123456789"],
         VaeHash("0123456789", True, "y.pt")),
        (["VAE: x.pt"], None),
        (["VAE hash: None"], None),
        (["VAE hash: 735e"], None),
        (["VAE hash: ../../etc/passwd"], None),
        (["Model hash: 735e4c3a44"], None),
    ],
)  # fmt: skip
def test_the_hash_in_generation_parameters(parameters: list[str], found: VaeHash | None) -> None:
    assert vae_hash(infotext(*parameters)) == found


@pytest.mark.parametrize("text", ["", "VAE hash: 735e4c3a44", "a cat, VAE hash: 735e4c3a44\nSteps: 20"])
def test_a_prompt_is_no_parameter(text: str) -> None:
    assert vae_hash(text) is None


# --- looked up -------------------------------------------------------------------------------------------------------


def test_a_vae_of_the_user(service: Service, host: StandaloneHost, tmp_path: Path) -> None:
    digest = sha256(tmp_path / "VAE" / "sub" / "kl.safetensors")
    assert said(service, f"VAE hash: {digest[:10]}", "VAE: renamed.safetensors") == (
        f"VAE hash {digest[:10]}: you have this VAE as sub/kl.safetensors."
    )
    (tmp_path / "VAE" / "copy.pt").write_bytes((tmp_path / "VAE" / "sub" / "kl.safetensors").read_bytes())
    host.listing(fresh=True)
    service.hashes.start()
    assert service.hashes.wait(LONG)
    assert said(service, f"VAE hash: {digest[:10].upper()}").endswith(
        "you have this VAE as copy.pt and sub/kl.safetensors."
    )


def test_a_published_vae_that_is_not_here(service: Service) -> None:
    assert said(service, f"VAE hash: {MSE[:10]}") == (
        f"VAE hash {MSE[:10]}: no VAE here has this hash; it is vae-ft-mse-840000-ema-pruned according to the "
        "catalogue."
    )
    assert "kl-f8-anime2" in said(service, f"VAE hash: {ANIME2}", "VAE: whatever.pt")


def test_an_unknown_hash(service: Service) -> None:
    assert said(service, "VAE hash: 0123456789") == "VAE hash 0123456789: no VAE here has this hash."
    assert said(service, "VAE: kl.safetensors") == ""
    assert said(service, f"VAE hash: {MSE[:8]}").endswith("has this hash."), "eight digits are too few for a name"


def test_files_that_are_not_hashed_yet(host: StandaloneHost) -> None:
    assert said(service_of(host), "VAE hash: 0123456789") == (
        "VAE hash 0123456789: no VAE here has this hash. "
        "Files without a hash: 2. Press Scan on the Library page to compute it."
    )


def test_a_name_that_contradicts_the_hash(service: Service, tmp_path: Path) -> None:
    """The WebUI stores the hashes of all VAEs under one key, so it can write that of another file."""
    digest = sha256(tmp_path / "VAE" / "sub" / "kl.safetensors")[:10]
    assert said(service, f"VAE hash: {digest}", "VAE: other.pt") == (
        f"VAE hash {digest}: you have this VAE as sub/kl.safetensors. Your other.pt has another hash: "
        "the WebUI may have written the hash of a VAE that it loaded before."
    )
    assert "another hash" not in said(service, f"VAE hash: {digest}", "VAE: kl.safetensors")


def test_an_override_is_found_by_its_weights(service: Service, host: StandaloneHost) -> None:
    """Whatever file they are in; built into a checkpoint, too."""
    (_, unscanned) = vae_found(
        service.hashes.find(infotext("VAE Lab override: x", "VAE Lab override hash: 0123456789"))
    )
    assert unscanned.startswith("Files without a hash: 3."), "no weights were read yet"
    list(Scan((), host.file_cache, listed=host.listing().files).run())
    for name, path in {**host.vae_files(), **host.checkpoint_files()}.items():
        record = host.file_cache.known(str(path))
        assert record is not None
        text = with_override(infotext(f"VAE hash: {MSE[:10]}"), "renamed.pt", short(record.fingerprint))
        (sentence,) = vae_found(service.hashes.find(text))
        assert sentence == f"VAE hash {short(record.fingerprint)}: you have this VAE as {name}."


# --- in the background -----------------------------------------------------------------------------------------------


def test_after_a_scan_everything_is_hashed(host: StandaloneHost, tmp_path: Path) -> None:
    service = service_of(host)
    service.scan()
    assert service.hashes.wait(LONG)
    status = service.hashes.status
    assert (status.busy, status.done) == (False, 3)
    rows = {row.name: row for row in service.scans.page().rows}
    assert rows["sub/kl.safetensors"].sha256 == sha256(tmp_path / "VAE" / "sub" / "kl.safetensors")
    assert rows["m.safetensors"].autov2 == sha256(tmp_path / "Stable-diffusion" / "m.safetensors")[:10]
    (found,) = service.scans.page(rows["m.safetensors"].autov2.upper()).rows
    assert found.name == "m.safetensors"


def test_it_waits_while_something_else_is_running(host: StandaloneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(host)
    reached = threading.Event()
    wait = service.runs.idle.wait

    def waiting(seconds: float) -> bool:
        reached.set()
        return wait(seconds)

    monkeypatch.setattr(service.runs.idle, "wait", waiting)
    with service.runs.one_at_a_time():
        service.hashes.start()
        assert reached.wait(LONG)
        assert (service.hashes.status.done, service.hashes.status.total) == (0, 3)
    assert service.hashes.wait(LONG)
    assert service.hashes.status.done == 3


def test_it_can_be_cancelled_and_resumes(host: StandaloneHost) -> None:
    service = service_of(host)
    assert not service.cancel(), "nothing is running"
    with service.runs.one_at_a_time():
        service.hashes.start()
        assert service.cancel()
        assert service.runs.cancelled(), "the run that a user sees comes first"
        assert service.hashes.cancel()
        assert service.hashes.wait(LONG)
    assert service.hashes.status.done == 0
    service.hashes.start()
    assert service.hashes.wait(LONG)
    assert service.hashes.status.done == 3


def test_a_stopped_scan_hashes_nothing(host: StandaloneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(host)
    monkeypatch.setattr(service.runs, "cancelled", lambda: True)
    assert not service.scan().complete
    assert service.hashes.wait(LONG)
    assert service.hashes.status.done == 0


def test_it_is_busy_from_the_start(host: StandaloneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing ten thousand files takes seconds, and a page asks only once whether anything is being hashed."""
    service, go_on = service_of(host), threading.Event()
    listing = host.listing()
    monkeypatch.setattr(host, "listing", lambda: go_on.wait(LONG) and listing)
    service.hashes.start()
    assert service.hashes.status.busy
    go_on.set()
    assert service.hashes.wait(LONG)
    assert not service.hashes.status.busy

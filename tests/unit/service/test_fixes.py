"""Fix all: a healthy VAE for every checkpoint whose own is broken or missing, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit import fix_tree
from tests.unit.conftest import ROOT
from tests.unit.fix_tree import JSON_FILES, USES, contents
from tests.unit.makers import diffusers_names, kl_state
from vae_lab import new_file
from vae_lab.autoencoders.kl.module import KLConfig
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library import FileCache
from vae_lab.service.fixes import FixService
from vae_lab.service.runs import Runs


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return fix_tree.scanned(tmp_path)


def host_of(models: Path, *, webui: bool = True) -> StandaloneHost:
    """A new one each time, as after a restart."""
    return StandaloneHost(Folders.of_models(models, models.parent / "data", webui=webui))


def fixes_of(models: Path, **how: bool) -> FixService:
    host = host_of(models, **how)
    fixes = FixService(host, Runs())
    fixes.host = host  # type: ignore[attr-defined]
    return fixes


def test_the_plan(models: Path) -> None:
    before = contents(models)
    plan = fixes_of(models).plan()
    found = {remedy.checkpoint: remedy for remedy in plan.remedies}
    assert {remedy.checkpoint: remedy.vae for remedy in plan.usable} == USES
    assert found["broken.safetensors"].reason == "it is healthy and of the SD1 / SD2 family"
    assert found["broken.safetensors"].finding == "Images are grey and washed out."
    assert "made for anime images" in found["deep/anime-mix.safetensors"].reason
    assert (found["empty.safetensors"].status, found["empty.safetensors"].now) == ("missing", AUTOMATIC)
    assert found["bad-choice.safetensors"].now == "bad.safetensors"
    assert found["good-choice.safetensors"].action == "keep"
    assert {remedy.checkpoint: remedy.reason for remedy in plan.left} == {
        "both.ckpt": "both.json also holds the choice for both.safetensors, which must stay as it is",
        "flux.safetensors": "no VAE in your folders is known to be healthy and of the Flux family",
    }
    assert found.keys() == {*USES, "good-choice.safetensors", "both.ckpt", "flux.safetensors"}
    assert (plan.unchecked, plan.changed, plan.remark) == (1, [], "")
    assert contents(models) == before


def test_without_a_healthy_vae_the_plan_names_one_to_download(models: Path) -> None:
    for vae in (models / "VAE").iterdir():
        vae.unlink()
    left = {remedy.checkpoint: remedy.reason for remedy in fixes_of(models).plan().left}
    assert "; vae-ft-mse-840000-ema-pruned.safetensors can be downloaded: on its Checkup" in left["broken.safetensors"]
    assert "downloaded" not in left["flux.safetensors"], "none is published for it"


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there")
def test_two_programs_do_not_lose_each_others_undo(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads the list, adds to it and writes it: what the other one has added meanwhile would be gone."""
    before, fixes = contents(models), fixes_of(models)
    monkeypatch.setattr(new_file, "_PAUSE", 0)
    fixes.manifest.path.parent.mkdir(parents=True, exist_ok=True)
    with new_file.alone_in(fixes.manifest.path.parent):
        for change in (fixes.apply, fixes.undo):
            with pytest.raises(HostError, match="another program is writing to this folder"):
                change()
    assert contents(models) == before
    assert dict(fixes.apply().changed) == USES


def test_applying_and_undoing_after_a_restart(models: Path) -> None:
    before = contents(models)
    result = fixes_of(models).apply()
    assert dict(result.changed) == USES
    assert result.failed == []
    after = contents(models)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {f"{Path(name).with_suffix('.json')}" for name in USES}
    assert json.loads(after["noted.json"]) == {"description": "猫", "vae": "plain.safetensors", "sd version": "SD1"}
    again = fixes_of(models)
    plan = again.plan()
    assert plan.usable == []
    assert dict(plan.changed) == USES
    host = host_of(models)
    host.select_checkpoint("noted.safetensors")
    assert host.chosen("checkpoint") == "plain.safetensors"
    undone = again.undo()
    assert (sorted(undone.restored), undone.refused) == (sorted(USES), [])
    assert contents(models) == before
    assert fixes_of(models).plan().changed == []
    with pytest.raises(UnknownChoice, match="There is nothing to undo"):
        fixes_of(models).undo()


def test_some_of_them_and_then_the_others_are_one_undo(models: Path) -> None:
    before = contents(models)
    assert dict(fixes_of(models).apply(["empty.safetensors"]).changed) == {"empty.safetensors": "plain.safetensors"}
    assert contents(models).keys() - before.keys() == {"empty.json"}
    fixes_of(models).apply()
    fixes_of(models).undo()
    assert contents(models) == before


def test_changed_twice_goes_back_to_the_first(models: Path) -> None:
    before = contents(models)
    fixes_of(models).apply()
    (models / "VAE" / "plain.safetensors").unlink()
    assert dict(fixes_of(models).apply().changed)["noted.safetensors"] == "anime.vae.pt"
    fixes_of(models).undo()
    assert contents(models) == before


@pytest.mark.parametrize("name", ["healthy.safetensors", "flux.safetensors", "nowhere.safetensors"])
def test_what_has_no_remedy_is_refused_and_nothing_is_changed(models: Path, name: str) -> None:
    before = contents(models)
    with pytest.raises(UnknownChoice, match=f"nothing to fix for {name}"):
        fixes_of(models).apply(["empty.safetensors", name])
    assert contents(models) == before


def test_a_file_that_was_changed_since_stays(models: Path) -> None:
    before = contents(models)
    fixes_of(models).apply()
    (models / "Stable-diffusion" / "noted.json").write_text("{}")
    (models / "Stable-diffusion" / "empty.json").unlink()
    (models / "Stable-diffusion" / "xl.safetensors").unlink()
    undone = fixes_of(models).undo()
    assert {name: why.split("/")[-1] for name, why in undone.refused} == {
        "noted.safetensors": "noted.json was changed since, so it stays as it is",
        "xl.safetensors": "xl.safetensors no longer exists",
    }
    expected = {**before, "noted.json": b"{}"}
    assert {name: text for name, text in contents(models).items() if name != "xl.json"} == expected


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything can be written there")
def test_a_folder_that_cannot_be_written(models: Path) -> None:
    before, deep = contents(models), models / "Stable-diffusion" / "deep"
    deep.chmod(0o555)
    try:
        result = fixes_of(models).apply()
    finally:
        deep.chmod(0o755)
    assert [name for name, _ in result.failed] == ["deep/anime-mix.safetensors"]
    assert "Permission denied" in result.failed[0][1]
    assert "deep/anime-mix.safetensors" not in dict(fixes_of(models).plan().changed)
    assert len(result.changed) == len(USES) - 1
    fixes_of(models).undo()
    assert contents(models) == before


def test_files_that_cannot_be_written(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder without permission, for whoever may write everywhere."""
    before, replace = contents(models), Path.replace

    def refusing(self: Path, target: Path) -> Path:
        if target.name == "anime-mix.json":
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refusing)
    result = fixes_of(models).apply()
    assert [name for name, _ in result.failed] == ["deep/anime-mix.safetensors"]
    assert dict(fixes_of(models).plan().changed) == dict(result.changed)
    assert len(result.changed) == len(USES) - 1
    fixes_of(models).undo()
    assert contents(models) == before, "no half-written file is left either"


def test_without_a_place_for_undo_nothing_is_changed(models: Path) -> None:
    before = contents(models)
    (models.parent / "file").write_text("")
    fixes = FixService(host_of(models), Runs(), models.parent / "file" / "fixes.json")
    with pytest.raises(HostError, match=r"fixes\.json could not be"):
        fixes.apply()
    assert contents(models) == before


def test_a_program_that_is_killed_leaves_a_list_that_undoes_what_it_has_done(models: Path) -> None:
    before = contents(models)
    script = f"""
import os
from pathlib import Path
from tests.unit.service.test_fixes import fixes_of
from vae_lab.host.checkpoint_choices import JsonFiles
write, count = JsonFiles.write, []
def dying(self, change, content):
    write(self, change, content)
    count.append(change)
    if len(count) == 3:
        os._exit(9)
JsonFiles.write = dying
fixes_of(Path({str(models)!r})).apply()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == 9
    assert contents(models) != before
    assert fixes_of(models).undo().refused == []
    assert contents(models) == before


def test_our_own_list_where_no_webui_reads(models: Path) -> None:
    before = contents(models)
    fixes = fixes_of(models, webui=False)
    fixes.apply()
    assert contents(models) == before
    host = host_of(models, webui=False)
    host.select_checkpoint("good-choice.safetensors")
    assert host.chosen("checkpoint") == "plain.safetensors", "the WebUI's preference is not read"
    undone = fixes_of(models, webui=False).undo()
    assert undone.refused == []
    host = host_of(models, webui=False)
    assert host.chosen("checkpoint") == AUTOMATIC


@pytest.mark.parametrize(
    "change",
    [
        {"file": "/etc/hosts.json"},
        {"file": "config.json", "path": "config.yaml"},
        {"after": "!!"},
        {"before": "W10="},  # a list
        {"path": 5},
    ],
)
def test_a_list_of_changes_by_someone_else_is_refused(models: Path, change: dict[str, object]) -> None:
    fixes = fixes_of(models)
    fixes.apply(["noted.safetensors"])
    path = models.parent / "data" / "fixes.json"
    stored = json.loads(path.read_text())
    stored["changes"][0] |= change
    path.write_text(json.dumps(stored))
    before = contents(models)
    with pytest.raises(HostError, match="is not a list of changes"):
        fixes_of(models).undo()
    assert contents(models) == before


def test_built_in_is_no_choice_that_stays(models: Path) -> None:
    (models / "Stable-diffusion" / "broken.json").write_text('{"vae": "None"}')
    plan = fixes_of(models).plan()
    now = {remedy.checkpoint: remedy.now for remedy in plan.usable}
    assert now["broken.safetensors"] == BUILT_IN


@pytest.mark.parametrize(
    ("vae", "stays"), [("unknown.safetensors", True), ("gone.pt", False), ("xl-vae.safetensors", False)]
)
def test_a_choice_that_is_not_known_to_be_wrong_stays(models: Path, vae: str, stays: bool) -> None:
    (models / "Stable-diffusion" / "broken.json").write_text(json.dumps({"vae": vae}))
    found = next(remedy for remedy in fixes_of(models).plan().remedies if remedy.checkpoint == "broken.safetensors")
    assert (found.action == "keep") is stays
    if stays:
        assert found.reason == "unknown.safetensors is chosen for it and not known to be broken"


def test_a_preferences_file_of_another_program_is_a_failure_by_name(models: Path) -> None:
    (models / "Stable-diffusion" / "broken.json").write_text("[1, 2]")
    result = fixes_of(models).apply()
    assert [name for name, _ in result.failed] == ["broken.safetensors"]
    assert "is not a JSON object" in result.failed[0][1]
    assert (models / "Stable-diffusion" / "broken.json").read_text() == "[1, 2]"
    assert len(result.changed) == len(USES) - 1
    assert JSON_FILES["healthy.json"] == contents(models)["healthy.json"]


def test_only_what_the_webui_can_load_for_the_checkpoint(models: Path) -> None:
    """A VAE of other layers than the built-in one, and one with names of diffusers."""
    cache = FileCache(models.parent / "data")
    other = kl_state(KLConfig(block_out_channels=(32, 64), layers_per_block=1))
    fix_tree.add(models / "VAE" / "plain.safetensors", other, "vae", "sd1", (), cache)
    fix_tree.add(models / "VAE" / "anime.vae.pt", diffusers_names(kl_state(), 2), "vae", "sd1", (), cache)
    cache.close()
    found = {remedy.checkpoint: remedy for remedy in fixes_of(models).plan().remedies}
    assert found["empty.safetensors"].vae == "plain.safetensors", "of a checkpoint without a VAE, nothing else is known"
    assert found["broken.safetensors"].action == "none"
    assert found["broken.safetensors"].reason.startswith("no healthy VAE of the SD1 / SD2 family can be used for it (")
    found = {remedy.checkpoint: remedy for remedy in fixes_of(models, webui=False).plan().remedies}
    assert found["broken.safetensors"].vae == "anime.vae.pt", "VAE Lab itself reads both names"

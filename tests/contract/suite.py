"""The host contract: one suite for all hosts.

A host's own test module subclasses :class:`HostContract` and gives one fixture, ``case``. The suite changes choices
of the host and puts them back; it changes no files. For a WebUI that is booted in this process:

    class TestA1111(HostContract):
        @pytest.fixture
        def case(self, webui) -> Iterator[Case]: ...
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vae_lab.comparison import Comparison
from vae_lab.errors import UnknownChoice, VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.images import prepared
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import sample_photos

__all__ = ["Case", "HostContract"]


@dataclass(frozen=True)
class Case:
    """A host, and what the suite must know of what is in it.

    Attributes:
        host: nothing chosen in it, and at least one generation stored.
        reopened: another instance over the same folders and settings, as after a restart; the same one where a host
            can exist once only.
        generation: id of a stored generation; small, because it is decoded often.
        usable: two VAEs that decode it, with different images.
        refused: VAEs that cannot decode it, each with a fragment of the reason.
        families: of some VAEs, the id of the family they belong to, or None.
        reads: whatever grows when weights are read, such as a count of opened files; None where it is not known.
    """

    host: Host
    reopened: Callable[[], Host]
    generation: str
    usable: tuple[str, str]
    refused: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, str | None] = field(default_factory=dict)
    reads: Callable[[], int] | None = None


class HostContract:
    """Subclass it with a fixture ``case``; see the module's docstring."""

    @pytest.fixture
    def case(self) -> Case:
        raise NotImplementedError

    @pytest.fixture
    def host(self, case: Case) -> Iterator[Host]:
        """The host, whose choices are put back afterwards."""
        yield case.host
        case.host.use_always(AUTOMATIC)
        case.host.use_for_checkpoint(AUTOMATIC)

    # --- what there is -----------------------------------------------------------------------------------------------

    def test_it_has_a_name(self, host: Host) -> None:
        assert host.name.strip()

    def test_it_says_what_it_is_and_names_no_folder(self, host: Host) -> None:
        facts = host.about()
        assert facts["Host"] == host.name
        assert all(isinstance(value, str) and value for value in facts.values())
        folders = [str(folder) for folder in (*host.library_folders(), host.data_folder(), Path.home())]
        assert [value for value in facts.values() for folder in folders if folder in value] == []

    def test_vaes_have_names_of_their_own(self, host: Host, case: Case) -> None:
        names = [entry.name for entry in host.vaes()]
        assert len(set(names)) == len(names)
        assert {*case.usable, *case.refused, *case.families} <= set(names)
        assert not {AUTOMATIC, BUILT_IN} & set(names)

    def test_labels_are_unique_too(self, host: Host) -> None:
        labels = [entry.label for entry in host.vaes()]
        assert len(set(labels)) == len(labels)
        assert all(entry.label.startswith(entry.name) for entry in host.vaes()), "names are never cut"

    def test_vaes_come_in_the_same_order_each_time(self, host: Host) -> None:
        assert [entry.name for entry in host.vaes()] == [entry.name for entry in host.vaes()]

    def test_listing_vaes_reads_no_weights(self, host: Host, case: Case) -> None:
        if case.reads is None:
            pytest.skip("this host does not report what it reads")
        before = case.reads()
        host.vaes()
        assert case.reads() == before

    def test_identify_tells_families_and_problems(self, host: Host, case: Case) -> None:
        found = {entry.name: entry for entry in host.identify()}
        assert list(found) == [entry.name for entry in host.vaes()]
        for name, family in case.families.items():
            entry = found[name]
            assert (entry.family.id if entry.family else None) == family
            assert bool(entry.problem) == (family is None)
            assert "\n" not in entry.problem

    def test_what_was_identified_is_known_from_then_on(self, host: Host) -> None:
        assert host.identify() == host.vaes()

    def test_identify_tells_its_progress(self, host: Host) -> None:
        reports: list[tuple[int, int, str]] = []
        entries = host.identify(lambda *report: reports.append(report))
        assert [what for _, _, what in reports][: len(entries)] == [entry.name for entry in entries]
        assert {total for _, total, _ in reports} == {len(entries)}

    def test_identify_can_be_stopped(self, host: Host) -> None:
        reports: list[str] = []
        host.identify(lambda done, total, what: reports.append(what), lambda: len(reports) >= 1)
        assert len(reports) == 1

    def test_current_checkpoint_is_one_of_the_checkpoints(self, host: Host) -> None:
        names = host.checkpoints()
        assert len(set(names)) == len(names)
        assert host.current_checkpoint() in names

    def test_checkpoints_are_files(self, host: Host) -> None:
        files = host.checkpoint_files()
        assert list(files) == host.checkpoints()
        assert all(path.is_file() for path in files.values())

    def test_library_folders_hold_all_that_is_listed(self, host: Host) -> None:
        folders = [folder.resolve() for folder in host.library_folders()]
        assert all(folder.exists() for folder in folders)
        assert len(set(folders)) == len(folders)
        for path in (*host.vae_files().values(), *host.checkpoint_files().values()):
            assert any(path.resolve().is_relative_to(folder) for folder in folders), path

    # --- the checkup -------------------------------------------------------------------------------------------------

    def test_new_vae_files_go_where_the_host_finds_them(self, host: Host) -> None:
        folder = host.vae_folder()
        assert any(folder == listed or folder.is_relative_to(listed) for listed in host.library_folders())

    def test_what_was_inspected_is_known_from_then_on(self, host: Host, case: Case) -> None:
        for name in (host.current_checkpoint(), *case.usable, *case.refused):
            report = host.inspect(name)
            assert host.known_reports([name]) == {name: report}
            assert report.path == str(host.file_of(name))

    def test_built_in_is_the_current_checkpoints_vae(self, host: Host) -> None:
        report = host.inspect(BUILT_IN)
        assert report.path == str(host.checkpoint_files()[host.current_checkpoint()])
        assert report == host.inspect(host.current_checkpoint())

    def test_families_are_the_same_to_both(self, host: Host, case: Case) -> None:
        for name, family in case.families.items():
            report = host.inspect(name)
            assert (report.family_id or None) == family
            assert (report.verdict.status == "unreadable") <= bool(report.problem)

    def test_inspecting_what_is_not_there(self, host: Host) -> None:
        with pytest.raises(UnknownChoice, match=r"no VAE and no checkpoint named gone\.pt"):
            host.inspect("gone.pt")
        assert host.known_reports(["gone.pt"]) == {}

    def test_recommended_is_a_healthy_vae_of_the_hosts(self, host: Host) -> None:
        host.inspect(BUILT_IN)
        found = host.recommendation(search=True)
        assert found is not None
        report = host.known_reports([found.name])[found.name]
        assert report.verdict.status == "healthy"
        assert report.family_id == host.checkpoint_family().id  # type: ignore[union-attr]
        assert host.recommendation() == found, "without searching, once it is known"

    def test_data_folder_can_be_written(self, host: Host) -> None:
        folder = host.data_folder()
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / "contract-probe"
        probe.write_text("x")
        assert probe.read_text() == "x"
        probe.unlink()

    # --- comparing ---------------------------------------------------------------------------------------------------

    def compare(self, case: Case, *vaes: str, **options: object) -> Comparison:
        return case.host.compare(case.generation, vaes, **options)  # type: ignore[arg-type]

    def test_built_in_comes_first_and_always(self, host: Host, case: Case) -> None:
        one, two = case.usable
        assert [r.name for r in self.compare(case, one, two)] == [BUILT_IN, one, two]
        assert [r.name for r in self.compare(case)] == [BUILT_IN]
        assert [r.name for r in self.compare(case, two, BUILT_IN)] == [BUILT_IN, two]

    def test_a_vae_named_twice_is_decoded_once(self, host: Host, case: Case) -> None:
        one = case.usable[0]
        assert [r.name for r in self.compare(case, one, one)] == [BUILT_IN, one]

    def test_images_are_those_of_the_latents(self, host: Host, case: Case) -> None:
        generation = host.generations.get(case.generation)
        batch, _, height, width = generation.latents.shape
        comparison = self.compare(case, *case.usable)
        assert comparison.family == generation.family
        assert len(comparison.decoded) == 3
        for result in comparison:
            assert result.error == ""
            assert result.finite
            assert result.images is not None
            assert result.images.dtype == np.uint8
            assert result.images.shape == (batch, height * 8, width * 8, 3)
        one, two = (comparison[name].images for name in case.usable)
        assert one is not None
        assert two is not None
        assert not np.array_equal(one, two), "under some hosts a copy of a VAE decodes with the original's weights"

    def test_what_has_decoded_is_known_by_its_weights(self, host: Host, case: Case) -> None:
        generation = host.generations.get(case.generation)
        comparison = self.compare(case, *case.usable)
        digests = {result.name: host.digest(result.name, generation) for result in comparison.decoded}
        for name, digest in digests.items():
            assert len(digest) == 10
            assert host.inspect(name).fingerprint.startswith(digest)
        assert digests[case.usable[0]] != digests[case.usable[1]]
        assert host.digest("gone.safetensors", generation) == ""

    def test_same_comparison_same_images(self, host: Host, case: Case) -> None:
        one, two = case.usable
        first, second = self.compare(case, one, two), self.compare(case, two, one)
        for name in (BUILT_IN, one, two):
            assert np.array_equal(first[name].images, second[name].images)  # type: ignore[arg-type]

    def test_choice_of_the_user_does_not_change_what_is_built_in(self, host: Host, case: Case) -> None:
        before = self.compare(case)
        host.use_always(case.usable[0])
        assert np.array_equal(before[BUILT_IN].images, self.compare(case)[BUILT_IN].images)  # type: ignore[arg-type]

    def test_what_cannot_be_used_gives_its_reason_and_stops_nobody(self, host: Host, case: Case) -> None:
        names = [*case.refused, case.usable[0]]
        comparison = self.compare(case, *names)
        assert [result.name for result in comparison] == [BUILT_IN, *names]
        for name, fragment in case.refused.items():
            assert comparison[name].images is None
            assert fragment in comparison[name].error
            assert "\n" not in comparison[name].error
        assert comparison[case.usable[0]].images is not None

    def test_vae_that_is_not_there_gives_a_result_with_the_reason(self, host: Host, case: Case) -> None:
        comparison = self.compare(case, "gone.safetensors", case.usable[0])
        assert comparison["gone.safetensors"].images is None
        assert "gone.safetensors" in comparison["gone.safetensors"].error
        assert comparison[case.usable[0]].images is not None

    def test_generation_that_is_not_stored(self, host: Host) -> None:
        with pytest.raises(UnknownChoice, match="generation no such generation is no longer stored"):
            host.compare("no such generation", [])

    def test_progress_reaches_the_total(self, host: Host, case: Case) -> None:
        reports: list[tuple[int, int]] = []
        names = [case.usable[0], *case.refused, "gone.safetensors"]
        self.compare(case, *names, progress=lambda done, total, what: reports.append((done, total)))
        batch = host.generations.get(case.generation).latents.shape[0]
        total = (1 + len(names)) * batch
        assert {total for _, total in reports} == {total}
        assert reports[-1][0] == total
        assert reports == sorted(reports)

    def test_cancel_keeps_what_is_finished(self, host: Host, case: Case) -> None:
        seen: list[str] = []
        comparison = self.compare(
            case,
            *case.usable,
            progress=lambda done, total, what: seen.append(what),
            cancelled=lambda: case.usable[0] in seen,
        )
        assert comparison.cancelled
        assert [result.name for result in comparison.decoded] == [BUILT_IN]

    def test_simultaneous_comparisons_do_not_mix(self, host: Host, case: Case) -> None:
        single = {name: self.compare(case, name)[name].images for name in case.usable}
        found: dict[str, object] = {}

        def run(name: str) -> None:
            found[name] = self.compare(case, name)[name].images

        threads = [threading.Thread(target=run, args=(name,)) for name in case.usable]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in case.usable:
            assert np.array_equal(found[name], single[name])  # type: ignore[arg-type]

    # --- round trip --------------------------------------------------------------------------------------------------

    @pytest.fixture
    def image(self) -> Tensor:
        """[1,3,32,40]: a sample photo, made smaller."""
        with Image.open(sample_photos()["cat"]) as photo:
            return prepared(photo.resize((40, 32))).image

    def test_round_trip_has_the_built_in_one_and_every_family(self, host: Host, case: Case, image: Tensor) -> None:
        names = [*case.usable, *case.refused, "gone.safetensors"]
        trip = host.round_trip(image, [names[0], *names])
        assert [result.name for result in trip] == [BUILT_IN, *names]
        assert trip["gone.safetensors"].error == "no VAE and no checkpoint named gone.safetensors"
        for name in (BUILT_IN, *case.usable):
            result = trip[name]
            assert result.error == ""
            assert result.finite
            assert result.image is not None
            assert result.image.shape == (32, 40, 3)
            assert result.loss is not None
            assert result.loss.psnr > 0
        for name in case.families.keys() & set(names):  # of another family than the checkpoint, too
            family = case.families[name]
            assert bool(trip[name].error) == (family is None)
            if family is not None:
                assert trip[name].family == FAMILIES[family]

    def test_round_trips_leave_no_trace(self, host: Host, case: Case, image: Tensor) -> None:
        before, decision = host.compare(case.generation, case.usable), host.decision()
        host.round_trip(image, case.usable)
        host.encode(image, case.usable[1])
        after = host.compare(case.generation, case.usable)
        for one, two in zip(before, after, strict=True):
            assert np.array_equal(one.images, two.images)  # type: ignore[arg-type]
        assert host.decision() == decision

    def test_round_trip_can_be_cancelled(self, host: Host, case: Case, image: Tensor) -> None:
        seen: list[int] = []
        trip = host.round_trip(image, case.usable, lambda done, total, what: seen.append(done), lambda: len(seen) >= 3)
        assert trip.cancelled
        assert [result.name for result in trip] == [BUILT_IN]

    def test_encode_is_the_way_there_of_the_round_trip(self, host: Host, case: Case, image: Tensor) -> None:
        trip = host.round_trip(image, case.usable)
        for name in (BUILT_IN, *case.usable):
            latent, family = host.encode(image, name)
            assert (latent.shape, latent.device.type, latent.dtype) == ((1, 4, 4, 5), "cpu", torch.float32)
            assert family is trip[name].family
            assert trip[name].latent is not None
            torch.testing.assert_close(latent, trip[name].latent, rtol=1e-3, atol=1e-3)

    def test_encode_with_what_cannot_be_used(self, host: Host, case: Case, image: Tensor) -> None:
        with pytest.raises(UnknownChoice, match=r"gone\.pt"):
            host.encode(image, "gone.pt")
        for name in (name for name, family in case.families.items() if family is None):
            with pytest.raises(VaeLabError, match=re.escape(name)):
                host.encode(image, name)

    # --- choosing ----------------------------------------------------------------------------------------------------

    def test_nothing_chosen_leaves_it_to_the_host(self, host: Host) -> None:
        assert host.decision().source == "host"
        assert host.decision(AUTOMATIC) == host.decision()

    def test_choice_for_one_generation(self, host: Host, case: Case) -> None:
        decision = host.decision(case.usable[0])
        assert (decision.vae, decision.source) == (case.usable[0], "generation")
        assert decision.path
        assert decision.vae in decision.reason
        assert host.decision().source == "host", "nothing stays"

    def test_built_in_for_one_generation(self, host: Host) -> None:
        decision = host.decision(BUILT_IN)
        assert (decision.vae, decision.source) == (BUILT_IN, "generation")
        assert decision.path, "the checkpoint's file"

    def test_choice_for_the_checkpoint_stays(self, host: Host, case: Case) -> None:
        message = host.use_for_checkpoint(case.usable[0])
        assert message.strip()
        assert "\n" not in message
        for instance in (host, case.reopened()):
            assert instance.decision().source == "checkpoint"
            assert instance.decision().vae == case.usable[0]
            assert instance.decision().reason

    def test_choice_for_every_checkpoint_stays(self, host: Host, case: Case) -> None:
        message = host.use_always(case.usable[0])
        assert message.strip()
        assert "\n" not in message
        for instance in (host, case.reopened()):
            assert instance.decision().source == "always"
            assert instance.decision().vae == case.usable[0]

    def test_built_in_for_every_checkpoint(self, host: Host, case: Case) -> None:
        host.use_always(BUILT_IN)
        assert case.reopened().decision().vae == BUILT_IN
        assert case.reopened().decision().source == "always"

    @pytest.mark.parametrize("method", ["use_for_checkpoint", "use_always"])
    def test_automatic_undoes(self, host: Host, case: Case, method: str) -> None:
        before = host.decision()
        getattr(host, method)(case.usable[0])
        assert host.decision() != before
        getattr(host, method)(AUTOMATIC)
        assert host.decision() == before
        assert case.reopened().decision() == before

    def test_generation_beats_always(self, host: Host, case: Case) -> None:
        one, two = case.usable
        host.use_always(one)
        assert host.decision(two).vae == two
        assert host.decision().vae == one

    def test_what_was_saved_is_known_whatever_goes_before_it(self, host: Host, case: Case) -> None:
        one, two = case.usable
        assert (host.chosen("checkpoint"), host.chosen("always")) == (AUTOMATIC, AUTOMATIC)
        for vae in (one, BUILT_IN):
            host.use_for_checkpoint(vae)
            host.use_always(two)
            assert (host.chosen("checkpoint"), host.chosen("always")) == (vae, two)
            assert case.reopened().chosen("checkpoint") == vae
            assert host.decision().source == "always"
            host.use_always(AUTOMATIC)
            assert (host.decision().source, host.decision().vae) == ("checkpoint", vae)

    @pytest.mark.parametrize("method", ["use_for_checkpoint", "use_always"])
    def test_choosing_what_is_not_there_is_refused_and_changes_nothing(self, host: Host, method: str) -> None:
        before = host.decision()
        with pytest.raises(UnknownChoice, match=r"no VAE named gone\.safetensors"):
            getattr(host, method)("gone.safetensors")
        assert host.decision() == before

    @pytest.mark.parametrize("method", ["use_for_checkpoint", "use_always"])
    def test_choosing_what_cannot_decode_is_refused_and_changes_nothing(
        self, host: Host, case: Case, method: str
    ) -> None:
        before = host.decision()
        for name, reason in case.refused.items():
            with pytest.raises(VaeLabError, match=re.escape(reason)):
                getattr(host, method)(name)
            assert host.decision() == before
            assert case.reopened().decision() == before

    def test_what_does_not_fit_is_never_active(self, host: Host, case: Case) -> None:
        before = host.decision()
        for name, reason in case.refused.items():
            decision = host.decision(name)
            assert (decision.vae, decision.source, decision.path) == (before.vae, "host", before.path)
            assert name in decision.reason
            assert reason in decision.reason

    def test_decision_for_a_vae_that_has_vanished_says_so(self, host: Host) -> None:
        """The tab asks whenever it is opened; a deleted file must not leave it empty."""
        decision = host.decision("gone.safetensors")
        assert (decision.vae, decision.source) == (host.host_decision().vae, "host"), "that is what decodes"
        assert "gone.safetensors" in decision.reason
        assert "missing" in decision.reason

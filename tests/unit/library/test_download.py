"""A published VAE is downloaded from a server that misbehaves on request; nothing else ever gets its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.publisher import Publisher, Request, breaks_off_after, redirects_to, refuses
from vae_lab.errors import Cancelled, VaeLabError
from vae_lab.identity import published_vaes
from vae_lab.latents.family import FAMILIES
from vae_lab.library.download import by_hand, download_vae, stored_bytes

NAME = "published.safetensors"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def part_in(folder: Path) -> Path:
    (part,) = folder.glob(".vae-lab-*.part")
    return part


def left_part(publisher: Publisher, folder: Path) -> Path:
    """What a download leaves whose server is gone after 1,000 bytes."""
    publisher.faults = [Request.send_range, breaks_off_after(1000), refuses(404)]
    refusal(publisher, folder)
    assert part_in(folder).stat().st_size == 1000
    return part_in(folder)


def refusal(publisher: Publisher, folder: Path, **facts: object) -> str:
    with pytest.raises(VaeLabError) as caught:
        download_vae(publisher.publishes(**facts), folder)  # type: ignore[arg-type]
    return str(caught.value)


def test_the_catalogue_names_one_file_for_each_family() -> None:
    published = published_vaes()
    assert [each.family for each in published] == ["sd1", "sdxl"]
    for each in published:
        assert each.family in FAMILIES
        assert each.address.startswith("https://huggingface.co/")
        assert each.file.endswith(".safetensors")
        assert Path(each.file).name == each.file
        assert len(each.sha256) == 64
        assert each.size > 3e8


def test_it_arrives_is_checked_and_has_its_name(publisher: Publisher, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str, list[str]]] = []

    def progress(done: int, total: int, what: str) -> None:
        seen.append((done, total, what, [path.name for path in tmp_path.iterdir() if path.suffix != ".part"]))

    record = download_vae(publisher.publishes(), tmp_path, progress=progress)
    assert files(tmp_path) == {NAME: publisher.content}
    assert (record.path, record.name, record.status) == (str(tmp_path / NAME), NAME, "healthy")
    size = len(publisher.content)
    assert [each[0] for each in seen] == sorted(each[0] for each in seen)
    assert seen[-1] == (size, size, NAME, []), "it has no name yet"
    assert stored_bytes(publisher.publishes(), tmp_path) == 0


def test_a_connection_that_breaks_off_is_continued(publisher: Publisher, tmp_path: Path) -> None:
    publisher.faults = [Request.send_range, breaks_off_after(300_000)]  # each connection begins with 64 kB
    download_vae(publisher.publishes(), tmp_path)
    assert files(tmp_path) == {NAME: publisher.content}
    assert [ranges for _, ranges in publisher.asked] == [
        "bytes=0-65535", f"bytes=0-{len(publisher.content) - 1}",
        "bytes=0-65535", f"bytes=300000-{len(publisher.content) - 1}",
    ]  # fmt: skip


def test_a_cancelled_download_is_resumed_by_the_next(publisher: Publisher, tmp_path: Path) -> None:
    done = 0

    def progress(now: int, total: int, what: str) -> None:
        nonlocal done
        done = now

    with pytest.raises(Cancelled):
        download_vae(publisher.publishes(), tmp_path, progress=progress, cancelled=lambda: done > 200_000)
    left = stored_bytes(publisher.publishes(), tmp_path)
    assert 200_000 < left == done < len(publisher.content)
    assert files(tmp_path).keys() == {part_in(tmp_path).name}
    totals = set()
    download_vae(publisher.publishes(), tmp_path, progress=lambda now, total, what: totals.add(total))
    assert totals == {len(publisher.content) - left}
    assert publisher.asked[-1][1].startswith(f"bytes={left}-")
    assert files(tmp_path) == {NAME: publisher.content}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "there is no such file on the server (404)"),
        (403, "the server denies access (403): a login may be needed, or the link has expired"),
        (500, "the server failed (500 Internal Server Error)"),
    ],
)
def test_a_server_that_refuses(publisher: Publisher, tmp_path: Path, status: int, reason: str) -> None:
    publisher.faults = [refuses(status)] * 3
    assert refusal(publisher, tmp_path) == f"{publisher.publishes().address}: {reason}"
    assert files(tmp_path) == {}


def test_another_size_is_not_downloaded(publisher: Publisher, tmp_path: Path) -> None:
    right = publisher.publishes()
    publisher.content += b"more"
    said = refusal(publisher, tmp_path, size=right.size, sha256=right.sha256)
    assert f"has {right.size + 4:,} bytes, but the published file has {right.size:,}" in said
    assert len(publisher.asked) == 1
    assert files(tmp_path) == {}


def test_another_file_of_the_same_size_is_deleted(publisher: Publisher, tmp_path: Path) -> None:
    right = publisher.publishes()
    publisher.content = publisher.content[:-1] + bytes([publisher.content[-1] ^ 1])
    wrong = publisher.publishes().sha256
    said = refusal(publisher, tmp_path, sha256=right.sha256)
    assert f"what arrived has the SHA-256 {wrong}, but the published file has {right.sha256}. It was deleted" in said
    assert files(tmp_path) == {}


def test_a_published_file_without_a_vae_gets_no_name(publisher: Publisher, tmp_path: Path) -> None:
    publisher.content = b"no VAE" * 20_000
    assert "it is the published file, but cannot be used: " in refusal(publisher, tmp_path)
    assert files(tmp_path) == {}


def test_only_https(publisher: Publisher, tmp_path: Path) -> None:
    address = publisher.publishes().address
    said = refusal(publisher, tmp_path, address=address.replace("https:", "http:"))
    assert said.endswith("only https addresses are downloaded from")
    assert not publisher.asked
    publisher.faults = [redirects_to("http://localhost/model.safetensors")]
    assert "redirects from https to http" in refusal(publisher, tmp_path)
    publisher.faults = [redirects_to(address + "?elsewhere")]
    download_vae(publisher.publishes(), tmp_path)
    assert publisher.asked[-1][0].endswith("?elsewhere")
    assert files(tmp_path) == {NAME: publisher.content}


# --- the folder ------------------------------------------------------------------------------------------------------


def test_no_other_file_is_replaced(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    (tmp_path / "published-2.safetensors").symlink_to(tmp_path / "nowhere")
    record = download_vae(publisher.publishes(), tmp_path)
    assert record.name == "published-3.safetensors"
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert (tmp_path / "published-3.safetensors").read_bytes() == publisher.content
    assert not (tmp_path / "nowhere").exists()


def test_a_name_that_is_taken_during_the_checkup(publisher: Publisher, tmp_path: Path) -> None:
    def take(done: int, total: int, what: str) -> None:
        if what:
            (tmp_path / NAME).write_bytes(b"mine")

    assert download_vae(publisher.publishes(), tmp_path, progress=take).name == "published-2.safetensors"
    assert (tmp_path / NAME).read_bytes() == b"mine"


def test_what_is_there_already_is_only_checked(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(publisher.content)
    record = download_vae(publisher.publishes(), tmp_path)
    assert (record.path, record.status) == (str(tmp_path / NAME), "healthy")
    assert not publisher.asked


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_link_is_followed(publisher: Publisher, tmp_path: Path, link) -> None:  # type: ignore[no-untyped-def]
    other, folder = tmp_path / "other.txt", tmp_path / "VAE"
    other.write_bytes(b"mine")
    folder.mkdir()
    part = left_part(publisher, folder)
    part.unlink()
    link(other, part)
    assert "is not a file that VAE Lab has made" in refusal(publisher, folder)
    assert other.read_bytes() == b"mine"
    assert files(folder) == {part.name: b"mine"}


def test_what_an_earlier_version_left_too_long_begins_again(publisher: Publisher, tmp_path: Path) -> None:
    left_part(publisher, tmp_path).write_bytes(bytes(len(publisher.content) + 1))
    download_vae(publisher.publishes(), tmp_path)
    assert files(tmp_path) == {NAME: publisher.content}


@pytest.mark.skipif(os.name == "nt", reason="nothing is locked there")
def test_not_twice_at_the_same_time(publisher: Publisher, tmp_path: Path) -> None:
    said = []

    def again(done: int, total: int, what: str) -> None:
        if not said:
            said.append(refusal(publisher, tmp_path))

    download_vae(publisher.publishes(), tmp_path, progress=again)
    assert said == [f"{tmp_path}: another program is downloading this file"]
    assert files(tmp_path) == {NAME: publisher.content}


def test_not_without_room(publisher: Publisher, tmp_path: Path) -> None:
    said = refusal(publisher, tmp_path, size=2**60)
    assert said.startswith(f"{tmp_path}: 1152921504.6 GB are needed, but ")
    assert not publisher.asked


def test_a_folder_that_does_not_exist(publisher: Publisher, tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(publisher, tmp_path / "nowhere")


def test_by_hand_says_everything(publisher: Publisher, tmp_path: Path) -> None:
    published = publisher.publishes(size=334641190)
    said = by_hand(published, tmp_path)
    for part in (published.address, str(tmp_path / NAME), "334,641,190 bytes", published.sha256):
        assert part in said

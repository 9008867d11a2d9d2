"""A file has its name only when it is whole, and takes no other file's place."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from vae_lab import new_file as module
from vae_lab.new_file import is_taken, new_file, new_files


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(target: Path, content: bytes, *, overwrite: bool = False) -> None:
    with new_file(target, overwrite=overwrite) as file:
        file.write(content)


@pytest.fixture(params=["links", "no links"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a file system with or without hard links."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        if os.name == "nt":
            pytest.skip("links are not used there")
        monkeypatch.setattr(module.os, "link", refuse)
    return tmp_path


def test_it_is_written_whole(folder: Path) -> None:
    with new_file(folder / "out") as file:
        file.write(b"half")
        file.flush()
        assert not (folder / "out").exists()
        assert Path(file.name).read_bytes() == b"half"
        file.write(b" and half")
    assert (folder / "out").read_bytes() == b"half and half"
    assert names_in(folder) == ["out"]


def test_a_file_that_exists_stays(folder: Path) -> None:
    (folder / "out").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="already exists"):
        write(folder / "out", b"new")
    assert (folder / "out").read_bytes() == b"mine"
    write(folder / "out", b"new", overwrite=True)
    assert (folder / "out").read_bytes() == b"new"
    assert names_in(folder) == ["out"]


def test_a_file_that_appears_meanwhile_stays(folder: Path) -> None:
    def run() -> None:
        with new_file(folder / "out") as file:
            file.write(b"new")
            (folder / "out").write_bytes(b"mine")

    with pytest.raises(FileExistsError, match="already exists"):
        run()
    assert (folder / "out").read_bytes() == b"mine"
    assert names_in(folder) == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
@pytest.mark.parametrize("exists", [True, False])
def test_no_link_is_followed(folder: Path, exists: bool) -> None:
    other = folder / "other"
    if exists:
        other.write_bytes(b"mine")
    (folder / "out").symlink_to(other)
    with pytest.raises(FileExistsError):
        write(folder / "out", b"new")
    write(folder / "out", b"new", overwrite=True)
    assert (folder / "out").read_bytes() == b"new"
    assert not (folder / "out").is_symlink()
    assert other.exists() == exists
    assert not exists or other.read_bytes() == b"mine"


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError()])
def test_an_error_leaves_everything_as_it_was(folder: Path, overwrite: bool, error: BaseException) -> None:
    if overwrite:
        (folder / "out").write_bytes(b"mine")

    def run() -> None:
        with new_file(folder / "out", overwrite=overwrite) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        run()
    assert names_in(folder) == (["out"] if overwrite else [])
    assert not overwrite or (folder / "out").read_bytes() == b"mine"


def test_of_many_writers_one_wins(folder: Path) -> None:
    together, won = threading.Barrier(8), []

    def run(number: int) -> None:
        content = bytes([number]) * 10_000
        try:
            with new_file(folder / "out") as file:
                together.wait()
                file.write(content)
        except FileExistsError:
            return
        won.append(content)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(folder / "out").read_bytes()] == won
    assert names_in(folder) == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="no such device")
def test_a_device_is_written_to() -> None:
    assert not is_taken(Path("/dev/null"))
    write(Path("/dev/null"), b"x")
    assert Path("/dev/null").is_char_device()


def test_a_long_name_and_the_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 250), b"x")
    (tmp_path / "usual").touch()
    assert (tmp_path / ("x" * 250)).stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="no such device, and links need a permission there")
def test_a_link_to_a_stream_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write to the folder could read what is written, or make the program wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to(tmp_path / "pipe")
    assert is_taken(tmp_path / "out")
    with pytest.raises(FileExistsError):
        write(tmp_path / "out", b"new")
    write(tmp_path / "out", b"new", overwrite=True)
    assert (tmp_path / "out").read_bytes() == b"new"
    assert not (tmp_path / "out").is_symlink()
    assert not is_taken(Path("/dev/fd/1")) or not Path("/dev/fd/1").exists() or Path("/dev/fd/1").is_file()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_in_the_place_of_a_stream_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """It was a stream when it was looked at."""
    (tmp_path / "out").write_bytes(b"mine")
    monkeypatch.setattr(module, "_is_stream", lambda _: True)
    with pytest.raises(FileExistsError):
        write(tmp_path / "out", b"new", overwrite=overwrite)
    assert (tmp_path / "out").read_bytes() == b"mine"


# --- several files ---------------------------------------------------------------------------------------------------


def test_several_files_get_their_names_together(folder: Path) -> None:
    with new_files(folder) as put:
        put("a", b"1")
        put("b", b"2")
        assert not {"a", "b"} & set(names_in(folder))
    assert names_in(folder) == ["a", "b"]
    assert (folder / "b").read_bytes() == b"2"


@pytest.mark.parametrize("meanwhile", [True, False])
def test_none_of_several_is_written_where_one_exists(folder: Path, meanwhile: bool) -> None:
    def run() -> None:
        with new_files(folder) as put:
            put("a", b"1")
            if meanwhile:
                put("b", b"2")
            (folder / "b").write_bytes(b"mine")
            if not meanwhile:
                put("b", b"2")

    with pytest.raises(FileExistsError, match="already exists"):
        run()
    assert names_in(folder) == ["b"]
    assert (folder / "b").read_bytes() == b"mine"


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
def test_several_files_follow_no_link(folder: Path) -> None:
    (folder / "other").write_bytes(b"mine")
    (folder / "a").symlink_to(folder / "other")
    with new_files(folder, overwrite=True) as put:
        put("a", b"new")
    assert (folder / "other").read_bytes() == b"mine"
    assert not (folder / "a").is_symlink()


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_error_leaves_none_of_several(folder: Path, overwrite: bool) -> None:
    def run() -> None:
        with new_files(folder, overwrite=overwrite) as put:
            put("a", b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert names_in(folder) == []


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there")
def test_who_does_not_finish_is_not_waited_for_in_vain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0)

    def run() -> None:
        with new_files(folder) as put:
            put("a", b"1")

    with module.alone_in(folder), pytest.raises(OSError, match="another program is writing to this folder"):
        run()
    assert names_in(folder) == []

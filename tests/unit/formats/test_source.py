from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from vae_lab.errors import UnreadableFile
from vae_lab.formats import ByteSource, LocalFile, MemorySource, open_weights


@pytest.fixture
def weights(tmp_path):
    """A good file of 4 MB, on disk."""
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(1_000_000.0)}, path)
    return path


@pytest.fixture
def vanished(weights):
    """Opens a good file and takes its second half away before anything is read from it."""
    file = open_weights(weights)
    os.truncate(weights, 2_000_000)
    yield file
    file.close()


def test_both_sources_are_byte_sources(weights):
    source = LocalFile(weights)
    assert isinstance(source, ByteSource)
    source.close()
    assert isinstance(MemorySource(b""), ByteSource)


def test_missing(tmp_path):
    with pytest.raises(UnreadableFile, match="there is no such file"):
        open_weights(tmp_path / "nowhere.ckpt")


def test_directory(tmp_path):
    with pytest.raises(UnreadableFile, match="a folder, not a file$"):
        open_weights(tmp_path)


def test_diffusers_directory(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UnreadableFile, match="looks like a diffusers model"):
        open_weights(tmp_path)


def test_empty(tmp_path):
    path = tmp_path / "empty.ckpt"
    path.touch()
    with pytest.raises(UnreadableFile, match=r"the file is empty \(0 bytes\)"):
        open_weights(path)


def test_empty_path():
    with pytest.raises(UnreadableFile, match="there is no such file"):
        open_weights("")


def test_null_in_path():
    with pytest.raises(UnreadableFile, match="cannot be read"):
        open_weights("a\0b")


@pytest.mark.skipif(sys.platform == "win32" or getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read all")
def test_no_permission(weights):
    weights.chmod(0)
    with pytest.raises(UnreadableFile, match="no permission"):
        open_weights(weights)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_does_not_block(tmp_path):
    path = tmp_path / "pipe.ckpt"
    os.mkfifo(path)
    with pytest.raises(UnreadableFile, match="a device or a pipe"):
        open_weights(path)


def test_shrinks_after_opening(vanished):
    with pytest.raises(UnreadableFile, match="became shorter"):
        vanished.read("a")


def test_grows_after_opening(weights):
    with open_weights(weights) as file:
        with weights.open("ab") as handle:
            handle.write(b"more")
        assert torch.equal(file.read("a"), torch.arange(1_000_000.0))


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
def test_deleted_after_opening(weights):
    with open_weights(weights) as file:
        weights.unlink()
        assert torch.equal(file.read("a"), torch.arange(1_000_000.0))


def test_range_beyond_the_end(weights):
    source = LocalFile(weights)
    with pytest.raises(UnreadableFile, match="truncated"):
        source.read_at(source.size - 1, 2)
    with pytest.raises(UnreadableFile, match="truncated"):
        source.read_at(-1, 1)
    source.close()
    source.close()


def test_without_pread(weights, monkeypatch):
    monkeypatch.delattr(os, "pread", raising=False)
    with open_weights(weights) as file:
        assert torch.equal(file.read("a"), torch.arange(1_000_000.0))


@pytest.mark.parametrize("with_pread", [True, False], ids=["pread", "seek"])
def test_threads_do_not_mix_up_their_ranges(weights, monkeypatch, with_pread):
    if not with_pread:
        monkeypatch.delattr(os, "pread", raising=False)
    with open_weights(weights) as file, ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda start: file.read_flat("a", start, 10), range(0, 1_000_000, 5000)))
    assert torch.equal(torch.cat([piece[:1] for piece in pieces]), torch.arange(0.0, 1_000_000, 5000))


def test_source_is_closed_when_opening_fails():
    source = MemorySource(b"not weights at all")
    with pytest.raises(UnreadableFile):
        open_weights(source)
    assert source.closed


def test_source_is_closed_with_the_file(saved):
    source = MemorySource(saved({"a": torch.ones(2)}))
    with open_weights(source) as file:
        assert not source.closed
        assert file.path == "<memory>"
    assert source.closed

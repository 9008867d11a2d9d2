from __future__ import annotations

import gzip
import io
import pickle
import tarfile

import pytest
import torch
from safetensors.torch import save

from vae_lab.errors import UnreadableFile
from vae_lab.formats import open_weights

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 334641190\n"


def tar_bytes():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty (0 bytes)"),
        (LFS, "text, not weights: a git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><head>", "text, not weights: it looks like a web page"),
        (b"\xef\xbb\xbf\r\n<html>", "text, not weights: it looks like a web page"),
        (b'{"error": "Unauthorized"}', "text, not weights: it looks like JSON"),
        (b"Dear diary, today", "text, not weights: it begins with 'Dear diary, today'"),
        ("Liebe Grüße ".encode() * 100, "text, not weights"),
        (b"cos\nsystem\n(S'echo'\ntR.", "text, not weights"),
        (bytes(4096), "begins with zeros"),
        (tar_bytes(), "a tar archive"),
        (gzip.compress(b"x" * 100, mtime=0), "a gzip archive: unpack it first"),
        (b"GGUF\x03\x00\x00\x00" + bytes(100), "a GGUF file"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\xde\xad\xbe\xef" * 10, "neither safetensors nor a torch checkpoint"),
        (b"\x00", "begins with zeros"),
        (pickle.dumps({"a": 1}), "a pickle, but not a torch checkpoint"),
    ],
)
def test_what_is_not_weights_is_named(open_bytes, data, message):
    with pytest.raises(UnreadableFile) as caught:
        open_bytes(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0x0280, 0x8B1F, 0x20000, 0x4647], ids=["pickle", "gzip", "zeros", "text"])
def test_length_of_a_safetensors_header_that_looks_like_a_magic_number(open_bytes, safetensors_bytes, length):
    with open_bytes(safetensors_bytes(b"{}".ljust(length))) as file:
        assert file.container == "safetensors"


@pytest.mark.parametrize(
    ("name", "container"),
    [("a.ckpt", "safetensors"), ("b.safetensors", "torch-zip"), ("c.txt", "torch-legacy")],
)
def test_the_name_of_the_file_does_not_matter(tmp_path, saved, name, container):
    value = {"a": torch.ones(2)}
    data = {
        "safetensors": save(value),
        "torch-zip": saved(value),
        "torch-legacy": saved(value, _use_new_zipfile_serialization=False),
    }[container]
    (tmp_path / name).write_bytes(data)
    with open_weights(tmp_path / name) as file:
        assert file.container == container
        assert torch.equal(file.read("a"), torch.ones(2))

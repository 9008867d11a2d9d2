from __future__ import annotations

import io
import struct
import zipfile

import pytest
import torch

from vae_lab.errors import FileError, MalformedFile, UnreadableFile

ONES = struct.pack("<4f", 1, 2, 3, 4)


@pytest.fixture
def good(storage, tensor, zip_bytes):
    """A small archive with one tensor, "a", that is all in order."""
    return zip_bytes({"a": tensor(storage("0", 4), 0, (2, 2), (2, 1))}, {"0": ONES})


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new)


def test_values(open_bytes, good):
    with open_bytes(good) as file:
        assert file.container == "torch-zip"
        assert file.metadata == {}
        assert file.read("a").tolist() == [[1, 2], [3, 4]]


def test_without_checksums(open_bytes, saved, monkeypatch):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this torch always writes checksums")
    torch.serialization.set_crc32_options(False)
    try:
        data = saved({"a": torch.ones(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert open_bytes(data).read("a").tolist() == [1, 1, 1]


def test_compressed(open_bytes, storage, tensor, zip_bytes):
    value = {"a": tensor(storage("0", 4), 0, (2, 2), (2, 1))}
    with pytest.raises(UnreadableFile, match="zip entry 'data.pkl' is compressed"):
        open_bytes(zip_bytes(value, {"0": ONES}, compression=zipfile.ZIP_DEFLATED))


def test_compressed_storage_only(open_bytes, storage, tensor, zip_bytes):
    buffer = io.BytesIO(zip_bytes({"a": tensor(storage("0", 2**20), 0, (2**20,), (1,))}))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2**22))
    with pytest.raises(UnreadableFile, match="zip entry 'data/0' is compressed"):
        open_bytes(buffer.getvalue())


def test_encrypted(open_bytes, good):
    # The flags of a central directory entry stand eight bytes behind its signature.
    position = good.index(b"PK\x01\x02") + 8
    with pytest.raises(UnreadableFile, match="zip entry 'data.pkl' is encrypted"):
        open_bytes(good[:position] + b"\x01\x00" + good[position + 2 :])


def test_no_data_pkl(open_bytes):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    with pytest.raises(
        UnreadableFile, match="without data.pkl, not a torch checkpoint; it contains 'word/document.xml'"
    ):
        open_bytes(buffer.getvalue())


def test_two_data_pkl(open_bytes, zip_bytes):
    with pytest.raises(MalformedFile, match="2 entries are named data.pkl"):
        open_bytes(zip_bytes({}, entries={"other/data.pkl": b"."}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entry(open_bytes, zip_bytes):
    with pytest.raises(MalformedFile, match="two zip entries have the same name"):
        open_bytes(zip_bytes({}, entries={"archive/data.pkl": b"."}))


@pytest.mark.parametrize("name", ["archive/constants.pkl", "archive/code/__torch__.py"])
def test_torch_script(open_bytes, zip_bytes, name):
    with pytest.raises(UnreadableFile, match="TorchScript"):
        open_bytes(zip_bytes({}, entries={name: b""}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_real_torch_script(open_bytes):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    with pytest.raises(UnreadableFile, match="TorchScript"):
        open_bytes(buffer.getvalue())


def test_big_endian(open_bytes, zip_bytes):
    with pytest.raises(UnreadableFile, match="byte order 'big'; only little"):
        open_bytes(zip_bytes({}, entries={"archive/byteorder": b"big"}))


def test_truncated_before_the_directory(open_bytes, good):
    with pytest.raises(UnreadableFile, match="truncated: the zip archive's directory at the end is missing"):
        open_bytes(good[: good.index(b"PK\x01\x02")])


def test_every_truncation_is_refused(open_bytes, good):
    for length in range(len(good)):
        with pytest.raises(FileError):
            open_bytes(good[:length])


def test_directory_damaged(open_bytes, good):
    with pytest.raises(MalformedFile, match="bad zip archive"):
        open_bytes(patched(good, b"PK\x01\x02", b"XX\x01\x02"))


def test_directory_larger_than_the_limit(open_bytes, good):
    with pytest.raises(MalformedFile, match="the zip directory has .* the limit is 50 bytes"):
        open_bytes(good, directory_bytes=50)


def test_local_header_contradicts_directory(open_bytes, good):
    position = good.index(b"PK\x03\x04", 4)
    file = open_bytes(good[:position] + b"XX" + good[position + 2 :])
    with pytest.raises(MalformedFile, match="zip entry 'data/0': its header contradicts"):
        file.read("a")


def test_storage_missing(open_bytes, storage, tensor, zip_bytes):
    with pytest.raises(MalformedFile, match="the archive has no entry 'data/0'"):
        open_bytes(zip_bytes({"a": tensor(storage("0", 4), 0, (4,), (1,))}))


def test_storage_shorter_than_promised(open_bytes, storage, tensor, zip_bytes):
    with pytest.raises(MalformedFile, match="storage '0' should have 400 bytes, the archive has 16"):
        open_bytes(zip_bytes({"a": tensor(storage("0", 100), 0, (4,), (1,))}, {"0": ONES}))


def test_entry_reaches_beyond_the_file(open_bytes, storage, tensor, zip_bytes):
    data = zip_bytes({"a": tensor(storage("0", 1000), 0, (1000,), (1,))}, {"0": ONES})
    # Both sizes of the directory's entry for the storage, changed from 16 to 4000 bytes.
    position = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4) + 20
    data = data[:position] + struct.pack("<LL", 4000, 4000) + data[position + 8 :]
    with pytest.raises(MalformedFile, match="zip entry 'data/0' reaches beyond the end of the file"):
        open_bytes(data).read("a")


def test_pickle_larger_than_the_limit(open_bytes, zip_bytes):
    with pytest.raises(MalformedFile, match=r"its pickle has 1\.. MB; the limit is 1\.0 MB"):
        open_bytes(zip_bytes({"log": "x" * 1_200_000}), pickle_bytes=1_000_000)


def test_pickle_ends_too_early(open_bytes, zip_bytes):
    with pytest.raises(UnreadableFile, match="the pickle in the archive ends too early"):
        open_bytes(zip_bytes(b"\x80\x02}"))


def test_zip64(open_bytes, storage, tensor, zip_bytes):
    """Entries with 64-bit sizes, as in checkpoints above 4 GB; torch's own writer is in the property tests."""
    buffer = io.BytesIO(zip_bytes({"a": tensor(storage("0", 4), 0, (4,), (1,))}))
    with (
        zipfile.ZipFile(buffer, "a") as archive,
        archive.open("archive/data/0", "w", force_zip64=True) as entry,
    ):
        entry.write(ONES)
    assert open_bytes(buffer.getvalue()).read("a").tolist() == [1, 2, 3, 4]


def test_bytes_before_the_archive_are_not_a_checkpoint(open_bytes, good):
    with pytest.raises(UnreadableFile, match="neither safetensors nor"):
        open_bytes(b"\xfe" * 10 + good)

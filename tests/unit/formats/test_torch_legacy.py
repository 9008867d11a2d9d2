from __future__ import annotations

import struct

import pytest
import torch

from vae_lab.errors import FileError, MalformedFile, UnreadableFile

ONES = struct.pack("<4f", 1, 2, 3, 4)


@pytest.fixture
def value(storage, tensor):
    return {"a": tensor(storage("7", 4), 0, (2, 2), (2, 1))}


def test_values(open_bytes, legacy_bytes, value):
    with open_bytes(legacy_bytes(value, [("7", 4, ONES)])) as file:
        assert file.container == "torch-legacy"
        assert file.read("a").tolist() == [[1, 2], [3, 4]]


def test_storages_follow_in_the_order_of_the_list(open_bytes, legacy_bytes, storage, tensor):
    value = {
        "a": tensor(storage("1", 2), 0, (2,), (1,)),
        "b": tensor(storage("2", 3, "ByteStorage"), 0, (3,), (1,)),
    }
    data = legacy_bytes(value, [("2", 3, b"\x05\x06\x07"), ("1", 2, struct.pack("<2f", 8, 9))])
    file = open_bytes(data)
    assert file.read("a").tolist() == [8, 9]
    assert file.read("b").tolist() == [5, 6, 7]


def test_view_of_a_storage(open_bytes, legacy_bytes, storage, tensor):
    value = {"a": tensor(storage("1", 4, view=("2", 1, 3)), 1, (2,), (1,))}
    assert open_bytes(legacy_bytes(value, [("1", 4, ONES)])).read("a").tolist() == [3, 4]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (("2", 2, 3), "a view beyond the end of its storage '1'"),
        (("2", -1, 3), "a view's offset is '-1'"),
        (("2", 0), "a malformed view of a storage"),
        (("2", 3, 1), "exceeds its storage '1' of 4 bytes"),
    ],
)
def test_bad_view(open_bytes, legacy_bytes, storage, tensor, view, message):
    value = {"a": tensor(storage("1", 4, view=view), 1, (2,), (1,))}
    with pytest.raises(MalformedFile) as caught:
        open_bytes(legacy_bytes(value, [("1", 4, ONES)]))
    assert message in str(caught.value)


def test_wrong_magic(open_bytes, legacy_bytes, value):
    with pytest.raises(UnreadableFile, match="torch's magic number is missing"):
        open_bytes(legacy_bytes(value, [("7", 4, ONES)], magic=12345))


@pytest.mark.parametrize("version", [1000, "1001", None])
def test_wrong_protocol(open_bytes, legacy_bytes, value, version):
    with pytest.raises(MalformedFile, match="torch protocol .*not 1001"):
        open_bytes(legacy_bytes(value, [("7", 4, ONES)], version=version))


def test_big_endian(open_bytes, legacy_bytes, value):
    with pytest.raises(UnreadableFile, match="big-endian"):
        open_bytes(legacy_bytes(value, [("7", 4, ONES)], system={"little_endian": False}))


def test_system_facts_missing(open_bytes, legacy_bytes, value):
    with pytest.raises(MalformedFile, match="is not a dict"):
        open_bytes(legacy_bytes(value, [("7", 4, ONES)], system=[1]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "1 are missing from it"),
        (["7", "8"], "1 storages in the list are unused"),
        (["7", "7"], "a storage is listed twice"),
        ("7", "the list of storages is not a list"),
        ([("7",)], "1 storages in the list are unused, 1 are missing from it"),
    ],
)
def test_bad_list_of_storages(open_bytes, legacy_bytes, value, keys, message):
    with pytest.raises(MalformedFile, match=message):
        open_bytes(legacy_bytes(value, [("7", 4, ONES)], keys=keys))


def test_truncated_data(open_bytes, legacy_bytes, value):
    with pytest.raises(UnreadableFile, match="truncated: .* bytes expected"):
        open_bytes(legacy_bytes(value, [("7", 4, ONES[:-1])]))


def test_truncated_pickle(open_bytes, legacy_bytes, value):
    data = legacy_bytes(value, [("7", 4, ONES)])
    with pytest.raises(UnreadableFile, match="truncated: the file ends within a pickle"):
        open_bytes(data[:150])


def test_every_truncation_is_refused(open_bytes, legacy_bytes, value):
    data = legacy_bytes(value, [("7", 4, ONES)])
    for length in range(len(data)):
        with pytest.raises(FileError):
            open_bytes(data[:length])


@pytest.mark.parametrize("count", [3, 5, -1, 2**62])
def test_length_in_front_of_the_data_differs(open_bytes, legacy_bytes, value, count):
    file = open_bytes(legacy_bytes(value, [("7", count, ONES)]))
    with pytest.raises(MalformedFile, match=f"should have 4 elements, but the file declares {count}"):
        file.read("a")


def test_storage_larger_than_the_file(open_bytes, legacy_bytes, storage, tensor):
    value = {"a": tensor(storage("7", 10**15), 0, (10**15,), (1,))}
    with pytest.raises(UnreadableFile, match="truncated: 4000000000000.* bytes expected"):
        open_bytes(legacy_bytes(value, [("7", 10**15, ONES)]))


def test_same_storage_with_two_sizes(open_bytes, legacy_bytes, storage, tensor):
    value = {"a": tensor(storage("7", 4), 0, (2,), (1,)), "b": tensor(storage("7", 5), 0, (2,), (1,))}
    with pytest.raises(MalformedFile, match="storage '7' has both 16 and 20 bytes"):
        open_bytes(legacy_bytes(value, [("7", 4, ONES)]))


def test_source_of_a_module_is_skipped(open_bytes, saved):
    """Whole modules, pickled with their source text as torch once did, have no tensors by name; nothing is imported."""
    file = open_bytes(saved(torch.nn.Linear(2, 2), _use_new_zipfile_serialization=False))
    assert not file.tensors


def test_old_protocols(open_bytes, saved):
    for protocol in (1, 2, 3, 4, 5):
        data = saved({"a": torch.arange(3)}, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
        assert open_bytes(data).read("a").tolist() == [0, 1, 2]

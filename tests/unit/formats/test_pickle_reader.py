"""Malicious pickles in both of torch's containers: nothing is executed, and memory and time are bounded."""

from __future__ import annotations

import collections
import os
import pathlib
import pickle
import struct
import time
import tracemalloc

import pytest
import torch

from vae_lab.errors import MalformedFile, UnreadableFile, UnsafePickle

FOUR = struct.pack("<4f", 1, 2, 3, 4)
PROTO = b"\x80\x02"


class Call:
    """Pickled as a call of any function with any arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture(params=["torch-zip", "torch-legacy"])
def packed(request, zip_bytes, legacy_bytes):
    """Puts a value or a raw pickle into each of torch's containers, with one storage "0" of four floats."""

    def pack(value):
        raw = isinstance(value, bytes)
        if request.param == "torch-zip":
            return zip_bytes(value, {"0": FOUR})
        return legacy_bytes(value, [] if raw else [("0", 4, FOUR)])

    return pack


# For bombs that take a second: both containers hand the pickle to the same reader, which smaller ones show of both.
in_one_container = pytest.mark.parametrize("packed", ["torch-zip"], indirect=True)


@pytest.fixture
def refused(packed, open_bytes):
    """Opens a pickle that must be refused as malformed, and returns the message."""

    def refuse(value, **limits):
        with pytest.raises(MalformedFile) as caught:
            open_bytes(packed(value), **limits)
        message = str(caught.value)
        assert len(message) < 300
        assert "\n" not in message
        return message

    return refuse


@pytest.fixture
def bounded():
    """Fails the test if it takes more than 200 MB of Python memory, or 20 seconds of this thread's own CPU time.

    Counting steps would miss the attacks that keep C code busy. Waiting for a busy machine does not count.
    """
    tracemalloc.start()
    start = time.thread_time()
    yield
    seconds = time.thread_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert seconds < 20


# What must not run


def test_os_system_is_refused_and_not_run(open_bytes, saved, tmp_path):
    sentinel = tmp_path / "sentinel"
    for zipped in (True, False):
        value = {"state_dict": {"a": torch.ones(2)}, "b": Call(os.system, f"touch {sentinel}")}
        data = saved(value, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UnsafePickle, match=r"asks for '(posix|nt)\.system'.*nothing was run"):
            open_bytes(data)
        assert not sentinel.exists()


def test_builtins_exec_is_refused_and_not_run(open_bytes, packed, tmp_path):
    sentinel = tmp_path / "sentinel"
    with pytest.raises(UnsafePickle, match=r"builtins?.*exec"):
        open_bytes(packed(Call(exec, f"open({str(sentinel)!r}, 'w')")))
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93.",
        b"cos\nsystem\n0}.",
    ],
    ids=["GLOBAL", "INST", "OBJ", "STACK_GLOBAL", "dotted", "named and dropped"],
)
def test_every_way_to_name_a_callable(open_bytes, packed, code):
    with pytest.raises(UnsafePickle, match=r"os\.system"):
        open_bytes(packed(code))


def test_plain_pickle_of_something_dangerous(open_bytes):
    with pytest.raises(UnsafePickle):
        open_bytes(pickle.dumps(Call(os.system, "true")))


def test_message_is_one_line_even_for_odd_names(open_bytes, packed):
    with pytest.raises(UnsafePickle) as caught:
        open_bytes(packed(b"\x80\x04\x8c\x02os\x8c\x09a\nb\x1b[31mc\x93."))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_classes_that_do_not_exist_are_inert(open_bytes, packed):
    code = b"}(S'callbacks'\ncno.such.module\nModelCheckpoint\n)R}S'a'\nK\x01sbS'epoch'\nK\x05u."
    assert not open_bytes(packed(PROTO + code)).tensors


def test_ordinary_training_state_is_inert(open_bytes, saved):
    value = {
        "state_dict": collections.OrderedDict(a=torch.ones(1)),
        "path": pathlib.PurePosixPath("/data"),
        "callbacks": collections.defaultdict(list, {"x": [1, {2, 3}, frozenset({4}), b"5", 1.5, None, True, 2**70]}),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "generator": torch.get_rng_state(),
        "complex": 1 + 2j,
        "module": torch.nn.Linear(1, 1),
    }
    assert set(open_bytes(saved(value)).tensors) == {"state_dict.a", "generator"}


def test_numpy_scalars_are_inert(open_bytes, saved):
    numpy = pytest.importorskip("numpy")
    value = {"loss": numpy.float64(0.5), "history": numpy.ones(3), "a": torch.ones(1)}
    assert set(open_bytes(saved(value)).tensors) == {"a"}


def test_dict_subclass_is_searched(open_bytes, saved):
    class Box(dict):
        pass

    Box.__qualname__ = Box.__name__ = "Box"
    globals()["Box"] = Box
    assert set(open_bytes(saved({"box": Box(a=torch.ones(1))})).tensors) == {"box.a"}


def test_ordered_dict_of_python_2(open_bytes, storage, tensor, packed):
    value = Call(collections.OrderedDict, [["a", tensor(storage("0", 4), 0, (4,), (1,))], ["b", 3]])
    assert open_bytes(packed(value)).read("a").tolist() == [1, 2, 3, 4]


def test_tensor_of_a_subclass(open_bytes, storage, tensor, packed):
    inner = tensor(storage("0", 4), 0, (2,), (1,))
    value = {"a": Call(torch._tensor._rebuild_from_type_v2, torch._utils._rebuild_tensor_v2, str, inner.args, {})}
    assert open_bytes(packed(value)).read("a").tolist() == [1, 2]


# Tensors that contradict themselves


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((0, (5,), (1,)), "exceeds its storage '0' of 16 bytes"),
        ((1, (4,), (1,)), "exceeds its storage"),
        ((4, (1,), (1,)), "exceeds its storage"),
        ((0, (2, 2), (3, 1)), "exceeds its storage"),
        ((0, (2,), (2**62,)), "exceeds its storage"),
        ((0, (10**9, 10**9), (0, 0)), "expands 16 bytes to"),
        ((0, (2**40, 2**40), (0, 0)), "overflow"),
        ((0, (2**62, 2**62, 0), (1, 1, 1)), "overflow"),
        ((-1, (2,), (1,)), "a tensor's offset is '-1'"),
        ((0, (-2, -2), (1, 1)), "a number in a tensor's shape is '-2'"),
        ((0, (2,), (-1,)), "a number in a tensor's strides is '-1'"),
        ((0, (2**63,), (0,)), "a number in a tensor's shape is '9223372036854775808'"),
        ((0, (2.0,), (1,)), "a number in a tensor's shape is not a number"),
        ((0, (True,), (1,)), "a number in a tensor's shape is not a number"),
        ((None, (2,), (1,)), "a tensor's offset is not a number"),
        ((0, [2], (1,)), "a tensor's shape is not a tuple"),
        ((0, (2, 2), (1,)), "with 1 strides"),
        ((0, (1,) * 65, (1,) * 65), "65 dimensions"),
    ],
)
def test_bad_tensor(refused, storage, tensor, args, message):
    assert message in refused({"a": tensor(storage("0", 4), *args)})


@pytest.mark.parametrize("stand_in", [None, 1, "0", ("storage", 1)])
def test_tensor_without_a_storage(refused, tensor, stand_in):
    assert "a tensor without a storage" in refused({"a": tensor(stand_in, 0, (1,), (1,))})


@pytest.mark.parametrize(("count", "message"), [(-4, "size is '-4'"), (2**63, "size is '92"), (1.5, "not a number")])
def test_bad_storage_size(refused, storage, tensor, count, message):
    assert message in refused({"a": tensor(storage("0", count), 0, (1,), (1,))})


def test_bad_storage_key(refused, storage, tensor):
    assert "a storage without a class or a key" in refused({"a": tensor(storage((), 4), 0, (1,), (1,))})


@pytest.mark.parametrize("code", [b"NQ.", b"]Q.", b")Q.", b"K\x01Q.", b"Pabc\n.", b"X\x07\x00\x00\x00storage\x85Q."])
def test_bad_persistent_id(refused, code):
    assert "a persistent id that is not a storage" in refused(PROTO + code)


def test_unknown_storage_class(refused):
    saved_id = b"(X\x07\x00\x00\x00storagectorch\nNoSuchStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ."
    assert "unknown storage class 'torch.NoSuchStorage'" in refused(PROTO + saved_id)


# Pickles that are out of order


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\xff.", "unknown"),
        (b".", "the stack is empty"),
        (b"0.", "a mark is missing"),
        (b"t.", "a mark is missing"),
        (b"K\x01\x86.", "a tuple longer than the stack"),
        (b"2.", "the stack is empty"),
        (b"q\x00.", "the stack is empty"),
        (b"h\x07.", "memo entry '7' does not exist"),
        (b"g-5\n.", "memo entry '-5' does not exist"),
        (b"Np-5\n.", "memo index of '-5'"),
        (b"Np99999999999\n.", "memo index of '99999999999'"),
        (b"}(K\x01u.", "a key that has no value"),
        (b"](K\x01K\x02u.", "to something that is not a dict"),
        (b"}K\x01a.", "appended to something that is not a list"),
        (b"ccollections\nOrderedDict\nNR.", "arguments are not a tuple"),
        (b"ctorch._utils\n_rebuild_parameter\n)R.", "a call without its argument"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "a tensor without a storage"),
        (b"ctorch._utils\n_rebuild_tensor_v3\n)R.", "a tensor without a dtype"),
        (b"ccollections\nOrderedDict\n](K\x01e\x85R.", "an entry that is not a pair"),
        (b"\x80\x09.", "unknown pickle protocol 9"),
        (b"\x82\x01.", "opcode EXT1, which torch does not use"),
        (b"\x97.", "opcode NEXT_BUFFER, which torch does not use"),
        (b"\x8c\x02osK\x01\x93.", "a global whose name is not a string"),
        (b"INaN\n.", "bad pickle"),
        (b"F" + b"1" * 70_000 + b"\n.", "a line of more than 65536 characters"),
        (b"c" + b"a" * 2000 + b"\nb\n.", "name has more than 1024 characters"),
        (b"Vabc\\ud8\n.", "bad pickle"),
        (b"X\x01\x00\x00\x00\xff.", "bad pickle"),
        (b"S'abc\n.", "bad pickle"),
    ],
)
def test_out_of_order(refused, code, message):
    assert message in refused(PROTO + code)


@pytest.mark.parametrize("code", [b"}", b"X\xff\x00\x00\x00abc", b"cos", b"K", b""])
def test_ends_too_early(open_bytes, zip_bytes, code):
    with pytest.raises(UnreadableFile, match="truncated: the pickle in the archive ends too early"):
        open_bytes(zip_bytes(PROTO + code))


# Bombs


def test_string_longer_than_the_file(open_bytes, zip_bytes, bounded):
    with pytest.raises(UnreadableFile, match="ends too early"):
        open_bytes(zip_bytes(PROTO + b"\x8d" + struct.pack("<Q", 2**40) + b"abc"))


def test_string_longer_than_the_limit(open_bytes, legacy_bytes, bounded):
    data = legacy_bytes(PROTO + b"\x8d" + struct.pack("<Q", 10**6) + b"a" * 10**6 + b".")
    with pytest.raises(MalformedFile, match=r"its pickle is larger than the limit of 100\.0 kB"):
        open_bytes(data, pickle_bytes=100_000)


def test_memo_bomb(refused, bounded):
    puts = b"".join(b"r" + struct.pack("<L", index) for index in range(10_000))
    assert "more than 5000 memo entries" in refused(PROTO + b"N" + puts + b".", memo_entries=5000)


def test_high_memo_index_takes_no_memory(open_bytes, packed, bounded):
    assert not open_bytes(packed(PROTO + b"Nr\xff\xff\xff\xff.")).tensors


def test_opcode_bomb(refused, bounded):
    assert "more than 10000 opcodes" in refused(PROTO + b"N0" * 10_000 + b"N.", opcodes=10_000)


@in_one_container
def test_stack_bomb(refused, bounded):
    assert "values on the stack" in refused(PROTO + b"N" * 200_000 + b".")


def test_mark_bomb(refused, bounded):
    assert "nested too deeply" in refused(PROTO + b"(" * 200_000 + b".")


@in_one_container
@pytest.mark.parametrize("code", [b"]" * 50_000 + b"a" * 49_999, b"N" + b"\x85" * 100_000], ids=["lists", "tuples"])
def test_deep_nesting(refused, bounded, code):
    assert "nested too deeply" in refused(PROTO + code + b".")


@in_one_container
def test_deep_nesting_as_a_key_is_dropped(open_bytes, packed, bounded):
    code = b"}" + b"N" + b"\x85" * 200_000 + b"K\x01s."
    assert not open_bytes(packed(PROTO + code)).tensors


def test_container_within_itself(open_bytes, packed, storage, tensor):
    value = {"a": tensor(storage("0", 4), 0, (4,), (1,))}
    value["again"] = value
    value["list"] = [value]
    assert set(open_bytes(packed(value)).tensors) == {"a"}


def test_billion_laughs(refused, bounded):
    laughs = b"]" + b"".join(b"q\x00](" + b"h\x00" * 10 + b"e" for _ in range(20)) + b"."
    assert "values to search for tensors" in refused(PROTO + laughs, visited_values=10_000)


def test_long_name(open_bytes, zip_bytes):
    name = b"X" + struct.pack("<L", 10_000) + b"n" * 10_000
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuK\x00NtQK\x00K\x00\x85K\x01\x85\x89NtR"
    )
    with pytest.raises(MalformedFile, match="a tensor's name has more than 4096 characters"):
        open_bytes(zip_bytes(PROTO + b"}" + name + tensor + b"s.", {"0": b""}))


@in_one_container
def test_one_list_made_into_many_dicts(open_bytes, packed, bounded):
    pairs = b"](" + b"K\x01K\x02\x86" * 10_000 + b"e\x85q\x00" + b"ccollections\nOrderedDict\nq\x010"
    code = PROTO + pairs + b"h\x01h\x00R0" * 10_000 + b"N."
    assert not open_bytes(packed(code)).tensors


@in_one_container
def test_equal_hashes_do_not_slow_a_dict_down(open_bytes, packed, bounded):
    # Python's hash of a multiple of this number is 0. Kept as they are, 30,000 such keys take a minute.
    keys = (pickle.dumps(index * (2**61 - 1), 2)[2:-1] + b"N" for index in range(30_000))
    assert not open_bytes(packed(PROTO + b"}(" + b"".join(keys) + b"u.")).tensors


def test_too_many_tensors(open_bytes, saved):
    with pytest.raises(MalformedFile, match="more than 3 tensors"):
        open_bytes(saved([torch.ones(1)] * 5), tensors=3)

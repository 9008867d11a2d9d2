"""One test per malformation, ported from the reference implementation's ``src/tensor.rs`` and extended."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import torch

from vae_lab.errors import MalformedFile, UnreadableFile

TEST = {"dtype": "I32", "shape": [2, 2], "data_offsets": [0, 16]}


def entry(dtype="I32", shape=(2, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def refused(open_bytes, safetensors_bytes):
    """Opens a header that must be refused as malformed, and returns the message."""

    def refuse(header, data=bytes(16), **limits):
        with pytest.raises(MalformedFile) as caught:
            open_bytes(safetensors_bytes(header, data), **limits)
        message = str(caught.value)
        assert message.startswith("model.bin: ")
        assert "\n" not in message
        return message

    return refuse


def test_values_shape_and_metadata(open_bytes, safetensors_bytes):
    values = torch.tensor([[1, 2], [3, -4]], dtype=torch.int32)
    data = safetensors_bytes({"__metadata__": {"format": "pt"}, "test": TEST}, values.numpy().tobytes())
    with open_bytes(data) as file:
        assert file.container == "safetensors"
        assert file.metadata == {"format": "pt"}
        assert list(file.tensors) == ["test"]
        assert torch.equal(file.read("test"), values)
        assert file.tensors["test"].nbytes == 16
        assert file.size == len(data)


def test_no_tensors(open_bytes, safetensors_bytes):
    assert not open_bytes(safetensors_bytes({})).tensors


@pytest.mark.parametrize("header", [b"{}\x0d\x20\x09\x0a", b"\x09\x0a{}\x0d\x20"], ids=["trailing", "leading"])
def test_whitespace_padded_header(open_bytes, safetensors_bytes, header):
    assert not open_bytes(safetensors_bytes(header)).tensors


def test_zero_sized_tensor(open_bytes, safetensors_bytes):
    file = open_bytes(safetensors_bytes({"test": entry(shape=(2, 0), offsets=(0, 0))}))
    assert file.read("test").shape == (2, 0)
    assert file.read_flat("test", 0, 0).shape == (0,)


def test_scalar(open_bytes, safetensors_bytes):
    file = open_bytes(safetensors_bytes({"test": entry("F16", (), (0, 2))}, b"\x00\x3c"))
    assert file.read("test").shape == ()
    assert file.read("test").item() == 1.0


def test_metadata_incomplete_buffer_extra(refused):
    assert "35 bytes follow after the last tensor" in refused(
        {"test": TEST}, bytes(16) + b"extra_bogus_data_for_polyglot_file!"
    )


def test_metadata_incomplete_buffer_missing(open_bytes, safetensors_bytes):
    with pytest.raises(UnreadableFile, match="truncated: .* bytes expected"):
        open_bytes(safetensors_bytes({"test": TEST}, bytes(14)))


def test_header_too_large(open_bytes):
    data = b"<\x00\x00\x00\x00\xff\xff\xff" + json.dumps({"test": TEST}).encode() + bytes(16)
    with pytest.raises(MalformedFile, match="the safetensors header has .* GB; the limit is 100.0 MB"):
        open_bytes(data)


def test_header_larger_than_the_limit(open_bytes, safetensors_bytes):
    with pytest.raises(MalformedFile, match="the limit is 10 bytes"):
        open_bytes(safetensors_bytes({"test": TEST}, bytes(16)), header_bytes=10)


def test_header_too_small(open_bytes):
    with pytest.raises(UnreadableFile, match="neither safetensors nor"):
        open_bytes(b"\x3c\x00\x01")


def test_header_length_without_header(open_bytes):
    with pytest.raises(UnreadableFile, match="truncated: the header claims 60 bytes, but the file has 8"):
        open_bytes(b"<\x00\x00\x00\x00\x00\x00\x00")


def test_header_length_beyond_the_file(open_bytes, safetensors_bytes):
    with pytest.raises(UnreadableFile, match="truncated: the header claims 99000000 bytes"):
        open_bytes(safetensors_bytes({"test": TEST}, bytes(16), length=99_000_000))


def test_header_non_utf8(refused):
    assert "codec can't decode" in refused(b"{\xff")


def test_header_not_json(refused):
    assert "safetensors header: " in refused(b"{")


def test_header_empty(refused):
    assert "safetensors header: " in refused(b"", b"\x01" * 16)


@pytest.mark.parametrize("header", [[], 1, "x", None])
def test_header_not_an_object(refused, header):
    assert "not a JSON object" in refused(header)


def test_header_nested_too_deeply(refused):
    assert "nested too deeply" in refused(b'{"a":' + b"[" * 200_000)


def test_duplicate_tensor_name(refused):
    text = json.dumps(TEST)
    assert "the name 'test' occurs twice" in refused(f'{{"test":{text},"test":{text}}}'.encode())


def test_duplicate_field(refused):
    assert "the name 'dtype' occurs twice" in refused(
        b'{"test":{"dtype":"I32","dtype":"I8","shape":[2,2],"data_offsets":[0,16]}}'
    )


def test_json_attack_overlap(refused):
    header = {f"weight_{index}": TEST for index in range(10)}
    assert "overlaps the one before it" in refused(header)


def test_partial_overlap(refused):
    header = {"a": TEST, "b": entry(offsets=(8, 24))}
    assert "tensor 'b' overlaps" in refused(header, bytes(24))


def test_hole_between_tensors(refused):
    header = {"a": TEST, "b": entry(offsets=(20, 36))}
    assert "a gap of 4 bytes before tensor 'b'" in refused(header, bytes(36))


def test_hole_before_the_first_tensor(refused):
    assert "a gap of 4 bytes" in refused({"a": entry(offsets=(4, 20))}, bytes(20))


@pytest.mark.parametrize("offsets", [(16, 0), (-16, 0), (0,), (0, 8, 16), (0.0, 16.0), ("0", "16"), (False, 16)])
def test_bad_offsets(refused, offsets):
    assert "data_offsets" in refused({"test": entry(offsets=offsets)})


def test_size_contradicts_shape(refused):
    assert "tensor 'test': I32 '[2, 2]' needs 16 bytes, data_offsets give 4" in refused(
        {"test": entry(offsets=(0, 4))}, bytes(4)
    )


@pytest.mark.parametrize("length", [18446744073709551614, 9223372036854775807], ids=["elements", "bytes"])
def test_validation_overflow(refused, length):
    assert "overflow" in refused({"test": entry(shape=(2, length))})


def test_overflow_hidden_by_zero(refused):
    assert "overflow" in refused({"test": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}, b"")


def test_number_too_long(refused):
    digits = b"9" * 100_000
    assert "more than 20 digits" in refused(b'{"test":{"dtype":"I32","shape":[' + digits + b'],"data_offsets":[0,16]}}')


@pytest.mark.parametrize("shape", [(-2, -2), (2.0, 2.0), (True, 4), ("2", "2"), (None,)])
def test_bad_shape(refused, shape):
    assert "shape" in refused({"test": entry(shape=shape)})


def test_too_many_dimensions(refused):
    assert "65 dimensions; the limit is 64" in refused({"test": entry(shape=(1,) * 65, offsets=(0, 4))}, bytes(4))


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
def test_missing_field(refused, field):
    assert field in refused({"test": {name: value for name, value in TEST.items() if name != field}})


@pytest.mark.parametrize("value", [None, 1, [], "x"])
def test_tensor_not_an_object(refused, value):
    assert "tensor 'test': not an object" in refused({"test": value})


@pytest.mark.parametrize("dtype", ["X99", 3, None, ["F32"]])
def test_unknown_dtype(refused, dtype):
    assert "tensor 'test': unknown dtype" in refused({"test": entry(dtype=dtype)})


@pytest.mark.parametrize("metadata", [{"a": 1}, {"a": {}}, [], "x"])
def test_metadata_not_strings(refused, metadata):
    assert "__metadata__ is not an object of strings" in refused({"__metadata__": metadata, "test": TEST})


def test_nan_is_not_json(refused):
    assert "NaN is not JSON" in refused(b'{"a": NaN}')


def test_name_is_not_unicode(refused):
    assert "not valid Unicode" in refused(b'{"\\ud800": {"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}')


def test_name_too_long(refused):
    assert "a tensor's name has 5000 characters" in refused({"a" * 5000: TEST})


def test_too_many_tensors(refused):
    assert "3 tensors; the limit is 2" in refused(dict.fromkeys("abc", TEST), tensors=2)


@pytest.mark.parametrize("filler", [b"[],", b'"",', b"{},", b"0,", b'"\\"[",'])
def test_json_bomb_is_counted_before_it_is_built(refused, filler):
    header = b'{"a":[' + filler * 1_000_000 + b"0]}"
    tracemalloc.start()
    message = refused(header, header_values=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than 100000 JSON values" in message
    assert peak < 8 * len(header)


def test_brackets_in_strings_are_not_counted_as_values(open_bytes, safetensors_bytes):
    metadata = {"tags": json.dumps([["a", {"b\\": '"[['}]] * 1000)}
    assert open_bytes(safetensors_bytes({"__metadata__": metadata}), header_values=100).metadata == metadata


def test_type_that_this_torch_lacks_fails_at_the_read(open_bytes, safetensors_bytes):
    header = {"odd": entry("F4", (4,), (0, 2)), "fine": entry("U8", (2,), (2, 4))}
    file = open_bytes(safetensors_bytes(header, b"\x00\x00\x01\x02"))
    assert file.tensors["odd"].flaw
    assert file.read("fine").tolist() == [1, 2]
    with pytest.raises(MalformedFile, match="tensor 'odd' cannot be read: torch .* does not support its type F4"):
        file.read("odd")


def test_packed_type_that_ends_within_a_byte(refused):
    assert "needs 1.5 bytes" in refused({"odd": entry("F4", (3,), (0, 2))}, bytes(2))

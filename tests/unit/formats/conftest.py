"""Builders of good and bad files, so that tests only show relevant bytes."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from vae_lab.formats import Limits, MemorySource, WeightFile, open_weights

_MAGIC = 0x1950A86A20F9469CFC6C
_SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Storage:
    """Stands for a storage in ``dumps``: pickled as the persistent id that torch writes."""

    def __init__(self, key: str, count: int, kind: str = "FloatStorage", view: tuple[str, int, int] | None = None):
        self.key, self.count, self.kind, self.view = key, count, kind, view


class Tensor:
    """Stands for a tensor in ``dumps``: pickled as a call of ``_rebuild_tensor_v2`` with these arguments."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> None:
        self.args = (storage, offset, shape, stride, False, None, *rest)

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.args


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, *, legacy: bool) -> None:
        super().__init__(file, protocol=2)
        self._legacy = legacy

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        saved_id = ("storage", getattr(torch, obj.kind), obj.key, "cpu", obj.count)
        return (*saved_id, obj.view) if self._legacy else saved_id


def _dumps(value: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, legacy=legacy).dump(value)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def storage() -> type[Storage]:
    """Makes a stand-in for a storage, with any declared properties."""
    return Storage


@pytest.fixture(scope="session")
def tensor() -> type[Tensor]:
    """Makes a stand-in for a tensor, whose numbers need not make sense."""
    return Tensor


@pytest.fixture(scope="session")
def open_bytes() -> Callable[..., WeightFile]:
    """Opens bytes as if they were a file named "model.bin"."""

    def open_(data: bytes, **limits: int) -> WeightFile:
        return open_weights(MemorySource(data, "model.bin"), limits=Limits(**limits))

    return open_


@pytest.fixture(scope="session")
def safetensors_bytes() -> Callable[..., bytes]:
    """Makes a safetensors file from a header (an object, or raw bytes) and the bytes of the data section."""

    def make(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(raw) if length is None else length) + raw + data

    return make


@pytest.fixture(scope="session")
def zip_bytes() -> Callable[..., bytes]:
    """Makes a torch archive around a value (or a raw pickle), with the given storages and further entries."""

    def make(
        value: object,
        storages: Mapping[str, bytes] | None = None,
        entries: Mapping[str, bytes] | None = None,
        *,
        compression: int = zipfile.ZIP_STORED,
    ) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr("archive/data.pkl", value if isinstance(value, bytes) else _dumps(value))
            for key, data in (storages or {}).items():
                archive.writestr(f"archive/data/{key}", data)
            for name, data in (entries or {}).items():
                archive.writestr(name, data)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def legacy_bytes() -> Callable[..., bytes]:
    """Makes a file of the legacy format around a value (or a raw pickle), with storages as (key, count, bytes)."""

    def make(
        value: object,
        storages: list[tuple[str, int, bytes]] | None = None,
        *,
        magic: object = _MAGIC,
        version: object = 1001,
        system: object = _SYSTEM,
        keys: object = None,
    ) -> bytes:
        parts = [pickle.dumps(item, 2) for item in (magic, version, system)]
        parts.append(value if isinstance(value, bytes) else _dumps(value, legacy=True))
        parts.append(pickle.dumps([key for key, _, _ in storages or []] if keys is None else keys, 2))
        for _, count, data in storages or []:
            parts += [struct.pack("<q", count), data]
        return b"".join(parts)

    return make


@pytest.fixture(scope="session")
def saved() -> Callable[..., bytes]:
    """What ``torch.save`` writes for a value."""

    def save(value: object, **options: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return buffer.getvalue()

    return save

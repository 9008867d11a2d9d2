"""Collects the tensors of a torch pickle: a flat name for each, and where its bytes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vae_lab.text import quoted, sized

from .limits import Limits
from .pickle_records import Opaque, StorageRef, TensorRef
from .weight_file import Extent, StoredTensor, TensorInfo

__all__ = ["find_tensors"]


def find_tensors(root: Any, locate: Callable[[StorageRef], int], limits: Limits) -> dict[str, StoredTensor]:
    """Return the tensors in nested dicts and lists, named by their keys and positions joined with dots.

    ``locate`` returns a storage's position in the file; it is called when a tensor is first read. Raises ValueError
    if two tensors get the same name, or if a limit is exceeded.
    """
    extents: dict[str, Extent] = {}
    tensors: dict[str, StoredTensor] = {}
    expanded = 0
    for name, tensor in _walk(root, limits):
        if name in tensors:
            raise ValueError(f"two tensors are named {quoted(name)}")
        if len(tensors) >= limits.tensors:
            raise ValueError(f"more than {limits.tensors} tensors")
        storage = tensor.storage
        if storage.key not in extents:
            extents[storage.key] = Extent(storage.nbytes, _bind(locate, storage))
        info = TensorInfo(name, tensor.dtype, tensor.shape, tensor.flaw)
        if info.nbytes > storage.nbytes:
            expanded += info.nbytes
            if expanded > limits.all_expanded_bytes:
                raise ValueError(f"tensors with repeated values expand to more than {sized(limits.all_expanded_bytes)}")
        tensors[name] = StoredTensor(info, extents[storage.key], tensor.start, tensor.stride)
    return tensors


def _bind(locate: Callable[[StorageRef], int], storage: StorageRef) -> Callable[[], int]:
    return lambda: locate(storage)


def _walk(root: Any, limits: Limits) -> Iterator[tuple[str, TensorRef]]:
    """Yield the tensors in containers, which may contain themselves or share their contents."""
    if isinstance(root, TensorRef):
        yield "", root
        return
    visited = 0
    path: list[str] = []  # keys from the root to the innermost open container
    ancestors = {id(root): _children(root)}  # the open containers by identity, outermost first
    while ancestors:
        inner = next(reversed(ancestors))
        for key, child in ancestors[inner]:
            visited += 1
            if visited > limits.visited_values:
                raise ValueError(f"more than {limits.visited_values} values to search for tensors")
            if isinstance(child, TensorRef):
                yield _joined(path, key, limits), child
            # A container within itself adds no tensors.
            elif isinstance(child, _CONTAINERS) and id(child) not in ancestors:
                if len(ancestors) >= limits.nesting:
                    raise ValueError(f"nested too deeply: more than {limits.nesting} containers")
                path.append(key)
                ancestors[id(child)] = _children(child)
                break
        else:
            del ancestors[inner]
            if path:
                path.pop()


def _joined(path: list[str], key: str, limits: Limits) -> str:
    if sum(map(len, path)) + len(path) + len(key) > limits.name_length:
        raise ValueError(f"a tensor's name has more than {limits.name_length} characters")
    return ".".join([*path, key])


_CONTAINERS = (dict, list, tuple, Opaque)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Opaque):
        value = value.items
    if isinstance(value, dict):
        return iter(value.items())
    if type(value) in (list, tuple):  # other tuples are records
        return ((str(index), item) for index, item in enumerate(value))
    return iter(())

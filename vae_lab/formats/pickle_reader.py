"""Parses pickles without executing them.

``pickletools.genops`` splits the bytes into opcodes, which a small stack machine applies to plain values and inert
records. No global is imported, and nothing that a pickle names is called.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from vae_lab.errors import MalformedFile, UnreadableFile, UnsafePickle
from vae_lab.text import one_line, quoted

from .limits import Limits
from .pickle_records import Opaque, StorageRef, Symbol, as_key, build_storage, call
from .pickle_stream import PickleStream
from .unsafe_globals import is_unsafe

__all__ = ["PickleReader"]

_MAX_PROTOCOL = 5


class PickleReader:
    """Reads consecutive pickles from a stream and collects the storages they refer to.

    ``load`` returns numbers, strings, tuples, lists, dicts with string keys, and the records of
    ``pickle_records``. Containers may contain themselves.
    """

    def __init__(self, stream: PickleStream, path: str, limits: Limits, *, truncation: str = "the pickle ends early"):
        self.storages: dict[str, StorageRef] = {}
        self._stream = stream
        self._path = path
        self._limits = limits
        self._truncation = truncation
        self._reset()

    def load(self) -> Any:
        """Return the next pickle's value.

        Raises UnreadableFile if the stream ends within it, UnsafePickle if it names a dangerous callable, MalformedFile
        if it is malformed or exceeds a limit.
        """
        self._reset()
        try:
            return self._run()
        except RecursionError as error:
            raise MalformedFile(self._path, "bad pickle: nested too deeply") from error
        # pickletools raises all but ValueError: DeprecationWarning for odd escapes in text, if warnings are errors.
        except (ValueError, KeyError, OverflowError, EOFError, struct.error, DeprecationWarning) as error:
            if self._stream.exhausted:
                raise UnreadableFile(self._path, f"truncated: {self._truncation}") from error
            raise MalformedFile(self._path, f"bad pickle: {one_line(error)}") from error

    def _reset(self) -> None:
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []  # one per open mark
        self._memo: dict[int, Any] = {}

    def _run(self) -> Any:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(self._stream)):  # type: ignore[arg-type]
            if count >= self._limits.opcodes:
                raise ValueError(f"more than {self._limits.opcodes} opcodes")
            if opcode.name == "STOP":
                break
            handler = _HANDLERS.get(opcode.name)
            if handler is None:
                raise ValueError(f"opcode {opcode.name}, which torch does not use")
            handler(self, arg)
            if len(self._stack) > self._limits.stack_depth:
                raise ValueError(f"more than {self._limits.stack_depth} values on the stack")
        return self._pop()

    # The stack

    def _pop(self) -> Any:
        if not self._stack:
            raise ValueError("the stack is empty")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise ValueError("the stack is empty")
        return self._stack[-1]

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop_to_mark(self) -> list[Any]:
        if not self._outer_stacks:
            raise ValueError("a mark is missing")
        items, self._stack = self._stack, self._outer_stacks.pop()
        return items

    def _mark(self, _: object) -> None:
        if len(self._outer_stacks) >= self._limits.marks:
            raise ValueError(f"nested too deeply: more than {self._limits.marks} open marks")
        self._outer_stacks.append(self._stack)
        self._stack = []

    def _drop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_to_mark()

    def _drop_to_mark(self, _: object) -> None:
        self._pop_to_mark()

    # The memo

    def _store(self, index: int | None) -> None:
        if index is None:  # MEMOIZE
            index = len(self._memo)
        if len(self._memo) >= self._limits.memo_entries:
            raise ValueError(f"more than {self._limits.memo_entries} memo entries")
        if not 0 <= index < 2**32:
            raise ValueError(f"a memo index of {quoted(index)}")
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f"memo entry {quoted(index)} does not exist")
        self._push(self._memo[index])

    # Containers

    def _tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise ValueError("a tuple longer than the stack")
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _dict(self, _: object) -> None:
        items = self._pop_to_mark()
        self._push({})
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a dict with a key that has no value")
        target = self._top()
        table = target.items if isinstance(target, Opaque) else target
        if not isinstance(table, dict):
            raise ValueError("an item is assigned to something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            name = as_key(key)
            if name is not None:  # other keys never occur in weights files, and could be expensive to hash
                table[name] = value

    def _set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise ValueError("a value is appended to something that is not a list")

    def _append(self, _: object) -> None:
        item = self._pop()
        self._extend([item])

    def _frozen_set(self, _: object) -> None:
        self._pop_to_mark()
        self._push(Opaque())

    # Globals and calls

    def _global(self, module: object, name: object) -> Symbol:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a global whose name is not a string")
        if len(module) + len(name) > self._limits.symbol_length:
            raise ValueError(f"a global whose name has more than {self._limits.symbol_length} characters")
        symbol = Symbol(module, name)
        if is_unsafe(module, name):
            raise UnsafePickle(
                self._path,
                f"its pickle asks for {quoted(symbol.path)}, which can run code and has no place in a weights file "
                "(nothing was run; do not load this file in other programs)",
            )
        return symbol

    def _push_global(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        self._push(self._global(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self._pop(), self._pop()
        self._push(self._global(module, name))

    def _reduce(self, _: object) -> None:
        args, function = self._pop(), self._pop()
        if not isinstance(args, tuple):
            raise ValueError("a call whose arguments are not a tuple")
        self._push(call(function, args, self._limits))

    def _new_object_ex(self, _: object) -> None:
        self._pop()  # keyword arguments; no known tensor has any
        self._reduce(None)

    def _instance(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        symbol = self._global(module, name)
        self._push(call(symbol, tuple(self._pop_to_mark()), self._limits))

    def _object(self, _: object) -> None:
        function, *args = self._pop_to_mark() or [None]
        self._push(call(function, tuple(args), self._limits))

    def _build(self, _: object) -> None:
        self._pop()  # the state, such as the _metadata of a state dict
        self._top()

    def _persistent(self, saved_id: object) -> None:
        kind = as_key(saved_id[0]) if isinstance(saved_id, tuple) and saved_id else None
        if kind == "module":  # the source code of a class, which old versions saved with it
            self._push(Opaque())
            return
        if kind != "storage":
            raise ValueError("a persistent id that is not a storage")
        storage = build_storage(saved_id)
        first = self.storages.setdefault(storage.key, storage)
        if first.nbytes != storage.nbytes:
            raise ValueError(f"storage {quoted(storage.key)} has both {first.nbytes} and {storage.nbytes} bytes")
        self._push(storage)


Handler = Callable[[PickleReader, Any], None]


def _push_value(value: object) -> Handler:
    return lambda reader, _: reader._push(value)


def _push_new(make: Callable[[], object]) -> Handler:
    return lambda reader, _: reader._push(make())


def _check_protocol(_: PickleReader, version: int) -> None:
    if version > _MAX_PROTOCOL:
        raise ValueError(f"unknown pickle protocol {version}")


# Every opcode of protocols 0 to 5, except EXT1/2/4, which refer to a registry of the loading program, and
# NEXT_BUFFER and READONLY_BUFFER, whose values are outside the file.
_HANDLERS: dict[str, Handler] = {
    "PROTO": _check_protocol,
    "FRAME": lambda *_: None,
    "NONE": _push_value(None),
    "NEWTRUE": _push_value(True),
    "NEWFALSE": _push_value(False),
    "EMPTY_TUPLE": _push_value(()),
    "EMPTY_LIST": _push_new(list),
    "EMPTY_DICT": _push_new(dict),
    "EMPTY_SET": _push_new(Opaque),
    "MARK": PickleReader._mark,
    "POP": PickleReader._drop,
    "POP_MARK": PickleReader._drop_to_mark,
    "DUP": lambda reader, _: reader._push(reader._top()),
    "TUPLE": lambda reader, _: reader._push(tuple(reader._pop_to_mark())),
    "TUPLE1": lambda reader, _: reader._tuple(1),
    "TUPLE2": lambda reader, _: reader._tuple(2),
    "TUPLE3": lambda reader, _: reader._tuple(3),
    "LIST": lambda reader, _: reader._push(reader._pop_to_mark()),
    "DICT": PickleReader._dict,
    "FROZENSET": PickleReader._frozen_set,
    "SETITEM": PickleReader._set_item,
    "SETITEMS": lambda reader, _: reader._set_items(reader._pop_to_mark()),
    "APPEND": PickleReader._append,
    "APPENDS": lambda reader, _: reader._extend(reader._pop_to_mark()),
    "ADDITEMS": lambda reader, _: reader._extend(reader._pop_to_mark()),
    "MEMOIZE": PickleReader._store,
    "GLOBAL": PickleReader._push_global,
    "STACK_GLOBAL": PickleReader._stack_global,
    "REDUCE": PickleReader._reduce,
    "NEWOBJ": PickleReader._reduce,
    "NEWOBJ_EX": PickleReader._new_object_ex,
    "OBJ": PickleReader._object,
    "INST": PickleReader._instance,
    "BUILD": PickleReader._build,
    "PERSID": PickleReader._persistent,
    "BINPERSID": lambda reader, _: reader._persistent(reader._pop()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleReader._store),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleReader._recall),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
        + ("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
        + ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        PickleReader._push,
    ),
}

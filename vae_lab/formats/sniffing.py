"""Detects a file's format by its first bytes, never by its name."""

from __future__ import annotations

from enum import Enum

from vae_lab.errors import UnreadableFile
from vae_lab.text import quoted

from .source import ByteSource

__all__ = ["Format", "sniff"]

# Enough for the magic number of every format below; that of a tar archive is at byte 257.
_HEAD_BYTES = 512

# What follows the length of a safetensors header. For lengths within the limit, its upper half is zero.
_JSON_STARTS = (b"{", b" ", b"\t", b"\r", b"\n")

_TAR_MAGIC_OFFSET, _TAR_MAGIC = 257, b"ustar"


class Format(Enum):
    """The supported formats of weights files."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch-zip"
    TORCH_LEGACY = "torch-legacy"


# Other files that are found under names like model.ckpt.
_FOREIGN = {
    b"GGUF": "a GGUF file (quantised weights), which is not supported",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\xfd7zXZ\x00": "an xz archive: unpack it first",
    b"\x89HDF": "an HDF5 file (Keras), not torch weights",
    b"\x93NUMPY": "a NumPy array, not torch weights",
    b"\x89PNG": "a PNG image, not weights",
    b"\xff\xd8\xff": "a JPEG image, not weights",
    b"RIFF": "a media file, not weights",
}


def sniff(source: ByteSource) -> Format:
    """Return the format. Raises UnreadableFile, with what the file looks like, if it is none of them."""
    if source.size == 0:
        raise UnreadableFile(source.name, "the file is empty (0 bytes)")
    head = source.read_at(0, min(source.size, _HEAD_BYTES))
    # Comes first, because the length at the start of a safetensors file can look like any short magic number.
    if head[4:8] == bytes(4) and head[8:9] in _JSON_STARTS:
        return Format.SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return Format.TORCH_ZIP
    foreign = _describe_foreign(head)
    if foreign:
        raise UnreadableFile(source.name, foreign)
    if _is_pickle(head):
        return Format.TORCH_LEGACY
    if _is_text(head):
        raise UnreadableFile(source.name, f"text, not weights: {_describe_text(head)}")
    if _is_broken_safetensors(head):
        return Format.SAFETENSORS
    raise UnreadableFile(source.name, "neither safetensors nor a torch checkpoint")


def _describe_foreign(head: bytes) -> str | None:
    if not head.strip(b"\0"):
        return "the file begins with zeros (incomplete download?)"
    if head[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + len(_TAR_MAGIC)] == _TAR_MAGIC:
        return "a tar archive (torch before 0.1.10 saved these): load it with torch and save it again"
    return next((f"this is {what}" for magic, what in _FOREIGN.items() if head.startswith(magic)), None)


def _is_pickle(head: bytes) -> bool:
    # Protocol 2 and later begin with their number. Protocols 0 and 1 begin with torch's magic number, in decimal.
    return (head[0] == 0x80 and head[1:2] <= b"\x0f") or head.startswith(b"L119547037146038801333356")


def _is_broken_safetensors(head: bytes) -> bool:
    # Half of the evidence is enough here, so that the message can say what is wrong.
    return head[4:8] == bytes(4) or head[8:9] == b"{"


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n\r\f\x1b" for byte in head) and b"\x7f" not in head and _decodes(head)


def _decodes(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # only the last character, which is cut
    return True


def _describe_text(head: bytes) -> str:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"version https://git-lfs.github.com"):
        return "a git LFS pointer, which stands for the real file (run `git lfs pull`, or download the file itself)"
    if start[:1] == b"<":
        return "it looks like a web page (the download probably got an error or a login page)"
    if start[:1] in (b"{", b"["):
        return "it looks like JSON"
    return f"it begins with {quoted(start[:40].decode('utf-8', 'replace'))}"

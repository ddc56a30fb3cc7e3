"""safetensors: arrays in C order, and strings, among them the header, and a checksum for it and for each array."""

from __future__ import annotations

import itertools
import json
import zlib
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bytes import Reading, bytes_of, check_unchanged, checksum_of
from ._content import DamagedFileError, check_length

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from ._content import Content, Part

HEADER, CHECKSUMS = "fast_momentum", "crc32"


def _library() -> Any:
    try:
        import safetensors
    except ImportError as error:
        error.add_note(
            "python -m pip install safetensors; or choose a name that ends in .npz, which needs NumPy alone"
        )
        raise
    return safetensors


def prepared(parts: dict[str, Part]) -> dict[str, Part]:
    """In C order: the format has no other one."""
    return {name: replace(part, order="C") for name, part in parts.items()}


def write(path: str, header: bytes, parts: dict[str, Part]) -> None:
    """Not by the library, which would not write into a file that is there, and so would leave another one behind."""
    _library()  # without which nobody could read it here
    checksums = {name: checksum_of(part) for name, part in parts.items()} | {"": zlib.crc32(header)}
    tensors: dict[str, Any] = {"__metadata__": {HEADER: header.decode(), CHECKSUMS: json.dumps(checksums)}}
    end = 0
    for name, part in parts.items():
        begin, end = end, end + part.n_bytes
        tensors[name] = {"dtype": _CODES[part.dtype], "shape": _shape(part), "data_offsets": [begin, end]}
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    check_length(text)
    with Path(path).open("wb", buffering=0) as file:
        for memory in itertools.chain(
            [len(text).to_bytes(8, "little"), text], *map(bytes_of, parts.values())
        ):
            _write(file, memory)
    for name, part in parts.items():
        if part.may_change:
            check_unchanged(name, part, checksums[name])


def _write(file: FileIO, memory: Any) -> None:
    done = 0
    while done < len(memory):
        done += file.write(memory[done:])


class Reader:
    """The library looks at whether the file makes sense; the bytes are then read from it directly."""

    def __init__(self, file: FileIO) -> None:
        library = _library()
        try:
            with library.safe_open(file.name, "numpy"):
                pass
            self._file = file
            n = int.from_bytes(file.read(8), "little")
            self._begin = 8 + n
            self._tensors: dict[str, Any] = json.loads(file.read(n))
            metadata = self._tensors.pop("__metadata__", {})
            self._header: bytes = metadata.get(HEADER, "").encode()
            self._checksums: dict[str, int] = dict(json.loads(metadata.get(CHECKSUMS, "{}")))
        except (
            library.SafetensorError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            RecursionError,
        ) as error:
            msg = f"it must be a file of safetensors: {error}"
            raise DamagedFileError(msg) from None

    def header(self) -> bytes:
        if not self._header:
            msg = f"it must have been written by fast_momentum.save(): its metadata have no {HEADER!r}"
            raise DamagedFileError(msg)
        if zlib.crc32(self._header) != self._checksums.get(""):
            msg = "its header must be as it was written: its checksum is another one"
            raise DamagedFileError(msg)
        return self._header

    def check(self, content: Content) -> None:
        if content.arrays.keys() != self._tensors.keys():
            differing = min(content.arrays.keys() ^ self._tensors.keys())
            msg = f"it must hold the arrays that its header names: {differing!r} differs"
            raise DamagedFileError(msg)
        for name, part in content.arrays.items():
            tensor = self._tensors[name]
            begin, end = tensor["data_offsets"]
            if (tensor["dtype"], tensor["shape"], end - begin) != (
                _CODES[part.dtype],
                _shape(part),
                part.n_bytes,
            ):
                msg = f"{name} must be the array of which its header speaks"
                raise DamagedFileError(msg)

    @contextmanager
    def opened(self, name: str, part: Part) -> Iterator[Reading]:  # noqa: ARG002 - that of .npz needs it
        """The bytes of an array, of which the checksum is looked at when all have been read."""
        begin = self._tensors[name]["data_offsets"][0]
        with closing(Reading(self._file, self._begin + begin)) as read:
            yield read
            if read.checksum() != self._checksums.get(name):
                msg = f"{name} must be as it was written: its checksum is another one"
                raise DamagedFileError(msg)


_CODES = {
    "float32": "F32",
    "float64": "F64",
    "complex64": "F32",
    "complex128": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
}


def _shape(part: Part) -> list[int]:
    """The format has complex numbers only of late, and not all of them: their parts are the last dimension."""
    return [*part.shape, 2] if part.dtype.startswith("complex") else list(part.shape)

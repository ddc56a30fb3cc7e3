"""NumPy's .npz: a ZIP archive without compression, of a .npy for each array and the header as checkpoint.json."""

from __future__ import annotations

import errno
import struct
import zipfile
import zlib
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from ._bytes import Reading, bytes_of, check_unchanged
from ._content import MOST_HEADER_BYTES, DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from ._content import Content, Part

HEADER = "checkpoint.json"
_LONGEST_NAME = 65_000  # a ZIP archive has 16 bits for the length


def prepared(parts: dict[str, Part]) -> dict[str, Part]:
    """As they are: what is neither in C nor in Fortran order is put in C order while it is written."""
    return parts


def write(path: str, header: bytes, parts: dict[str, Part]) -> None:
    begun = {name: _npy_header(part) for name, part in parts.items()}
    for name in parts:
        if len(name.encode()) > _LONGEST_NAME:
            msg = f"{name[:50]}... must have a path of at most {_LONGEST_NAME} bytes, not {len(name.encode())}; rename its keys"
            raise ValueError(msg)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(zipfile.ZipInfo(HEADER), header)  # ZipInfo: the same bytes whenever it is written
        for name, part in parts.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                member.write(begun[name])
                for memory in bytes_of(part):
                    member.write(memory)
    for name, part in parts.items():
        if part.may_change:
            check_unchanged(name, part, archive.getinfo(f"{name}.npy").CRC, zlib.crc32(begun[name]))


def _npy_header(part: Part) -> bytes:
    """As the format of .npy wants it, which numpy.lib.format describes: compared as a whole when it is read."""
    text = (
        f"{{'descr': '{part.item_type.str}', 'fortran_order': {part.order == 'F'}, 'shape': {part.shape}, }}"
    )
    begin = b"\x93NUMPY\x01\x00"
    n_filled = -(len(begin) + 2 + len(text) + 1) % 64 + len(text) + 1
    return begin + n_filled.to_bytes(2, "little") + text.ljust(n_filled - 1).encode() + b"\n"


class Reader:
    """Each byte that is read is part of a member, which has a checksum, or is compared."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        size = file.seek(0, 2)
        with _told("the archive"):
            self._archive = zipfile.ZipFile(file)
        members = self._archive.infolist()
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            msg = "its archive must have each name once"
            raise DamagedFileError(msg)
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                msg = f"{member.filename!r} must be stored without compression, as save() does it"
                raise DamagedFileError(msg)
        if sum(member.file_size for member in members) > size:
            msg = "its archive must not say that it holds more bytes than there are"
            raise DamagedFileError(msg)

    def header(self) -> bytes:
        member = self._members.get(HEADER)
        if member is None:
            msg = f"it must have been written by fast_momentum.save(): it has no {HEADER!r}"
            raise DamagedFileError(msg)
        if member.file_size > MOST_HEADER_BYTES:
            msg = f"its header must take at most {MOST_HEADER_BYTES} bytes, not {member.file_size}"
            raise DamagedFileError(msg)
        with _told(HEADER):
            return self._archive.read(member)

    def check(self, content: Content) -> None:
        names = {HEADER, *(f"{name}.npy" for name in content.arrays)}
        if names != self._members.keys():
            msg = f"it must hold the arrays that its header names: {min(names ^ self._members.keys())!r} differs"
            raise DamagedFileError(msg)
        for name, part in content.arrays.items():
            if self._members[f"{name}.npy"].file_size != len(_npy_header(part)) + part.n_bytes:
                msg = f"{name} must have as many bytes as its header says"
                raise DamagedFileError(msg)

    @contextmanager
    def opened(self, name: str, part: Part) -> Iterator[Reading]:
        """The bytes of an array, of which the checksum is looked at when all have been read."""
        member, header = self._members[f"{name}.npy"], _npy_header(part)
        with _told(name):
            begin = self._begin_of(member)
            self._file.seek(begin)
            if self._file.read(len(header)) != header:
                msg = "it is not the array of which the header speaks"
                raise ValueError(msg)
        with closing(Reading(self._file, begin + len(header), zlib.crc32(header))) as read:
            yield read
            if read.checksum() != member.CRC:
                msg = f"{name} must be as it was written: its checksum is another one"
                raise DamagedFileError(msg)

    def _begin_of(self, member: zipfile.ZipInfo) -> int:
        """After its local header, whose name and extra have their own lengths."""
        self._file.seek(member.header_offset)
        kind, n_name, n_extra = struct.unpack("<4s22xHH", self._file.read(30).ljust(30))
        if kind != b"PK\3\4" or self._file.read(n_name) != member.filename.encode():
            msg = "its name stands elsewhere"
            raise ValueError(msg)
        return member.header_offset + 30 + int(n_name) + int(n_extra)


# What zipfile raises about bytes that make no sense to it; EINVAL where it is sought out of bounds.
_FAULTS = (
    zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, KeyError, OverflowError, OSError,
)  # fmt: skip


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except DamagedFileError:
        raise
    except _FAULTS as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        msg = f"{name} must be as it was written: {error}"
        raise DamagedFileError(msg) from None

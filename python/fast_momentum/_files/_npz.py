"""NumPy's .npz: a ZIP archive without compression, of a .npy for each array and the header as checkpoint.json."""

from __future__ import annotations

import errno
import struct
import zipfile
import zlib
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np

from ._bytes import Reading, bytes_of
from ._content import MOST_HEADER_BYTES, Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._content import Content, Part

HEADER = "checkpoint.json"


def prepared(parts: dict[str, Part]) -> dict[str, Part]:
    """As they are: what is neither in C nor in Fortran order is put in C order while it is written."""
    return parts


def write(path: str, header: bytes, parts: dict[str, Part]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(zipfile.ZipInfo(HEADER), header)  # ZipInfo: the same bytes whenever it is written
        for name, part in parts.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                form = {"descr": part.item_type.str, "fortran_order": part.order == "F", "shape": part.shape}
                np.lib.format.write_array_header_1_0(member, form)
                for memory in bytes_of(part):
                    member.write(memory)


class Reader:
    """Each byte that is read is part of a member, which has a checksum, or is compared."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        size = file.seek(0, 2)
        with _told("the archive"):
            self._archive = zipfile.ZipFile(file)
        members = self._archive.infolist()
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            msg = "its archive must have each name once"
            raise Damaged(msg)
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                msg = f"{member.filename!r} must be stored without compression, as save() does it"
                raise Damaged(msg)
        if sum(member.file_size for member in members) > size:
            msg = "its archive must not say that it holds more bytes than there are"
            raise Damaged(msg)

    def header(self) -> bytes:
        member = self._members.get(HEADER)
        if member is None:
            msg = f"it must have been written by fast_momentum.save(): it has no {HEADER!r}"
            raise Damaged(msg)
        if member.file_size > MOST_HEADER_BYTES:
            msg = f"its header must take at most {MOST_HEADER_BYTES} bytes, not {member.file_size}"
            raise Damaged(msg)
        with _told(HEADER):
            return self._archive.read(member)

    def check(self, content: Content) -> None:
        names = {HEADER, *(f"{name}.npy" for name in content.arrays)}
        if names != self._members.keys():
            msg = f"it must hold the arrays that its header names: {min(names ^ self._members.keys())!r} differs"
            raise Damaged(msg)

    @contextmanager
    def opened(self, name: str, part: Part) -> Iterator[Reading]:
        """The bytes of an array, of which the checksum is looked at when all have been read."""
        member = self._members[f"{name}.npy"]
        with _told(name):
            with self._archive.open(member) as file:  # looks at what stands before it, too
                if np.lib.format.read_magic(file) != (1, 0):
                    msg = "its version is another one"
                    raise ValueError(msg)
                shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
                n = file.tell()
            found = (shape, is_fortran, dtype, member.file_size - n)
            if found != (part.shape, part.order == "F", part.item_type, part.n_bytes):
                msg = "it is not the array of which the header speaks"
                raise ValueError(msg)
            begin = self._begin_of(member)
            self._file.seek(begin)
            checksum = zlib.crc32(self._file.read(n))
        with closing(Reading(self._file, begin + n, checksum)) as read:
            yield read
            if read.checksum() != member.CRC:
                msg = f"{name} must be as it was written: its checksum is another one"
                raise Damaged(msg)

    def _begin_of(self, member: zipfile.ZipInfo) -> int:
        """After its local header, whose name and extra have their own lengths."""
        self._file.seek(member.header_offset)
        n_name, n_extra = struct.unpack("<26xHH", self._file.read(30))
        return member.header_offset + 30 + int(n_name) + int(n_extra)


# What zipfile and numpy.lib.format raise about bytes that make no sense to them; EINVAL where it is sought out of bounds.
_FAULTS = (
    zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, KeyError, OverflowError, OSError,
)  # fmt: skip


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except Damaged:
        raise
    except _FAULTS as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        msg = f"{name} must be as it was written: {error}"
        raise Damaged(msg) from None

"""A file that is written beside another one and takes its place once it is whole and on the disk."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Iterator


PREFIX = ".fast_momentum-"  # of the names of files that are being written, however long that of the target is


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """Give the name of an empty file to be written; then put it in the place of `path`.

    Whatever ends the process when, `path` is there as it was before or as it is after. As open() would, this follows
    links, keeps the mode of a file that is there, obeys the umask, and refuses what may not be written. The file is
    locked while it is written: what a killed process has left behind has no lock, and is removed by the next one that
    succeeds in this folder.
    """
    target = Path(os.path.realpath(path))
    before = _what_is_there(target)
    with _locked_file(target, 0o600 if before else 0o666) as (beside, descriptor):
        try:
            yield os.fspath(beside)
            if before:
                _take_over(beside, before)
            _flush(beside, descriptor)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        try:
            beside.replace(target)
        except OSError as error:
            error.add_note(f"the new file is whole, and stays in {os.fspath(beside)!r}: rename it")
            raise
    _flush_folder(target.parent)
    _sweep(target.parent)


def _what_is_there(target: Path) -> os.stat_result | None:
    """None where nothing is; raises where open() to write would, or where it is no file."""
    try:
        before = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISREG(before.st_mode):
        os.close(os.open(target, os.O_WRONLY))
    elif not stat.S_ISDIR(before.st_mode):
        msg = f"path must be the name of a file, or a new one, not that of a device or pipe, {os.fspath(target)!r}"
        raise ValueError(msg)
    else:
        msg = f"path must be the name of a file, or a new one, not that of a folder, {os.fspath(target)!r}"
        raise IsADirectoryError(msg)
    return before


@contextmanager
def _locked_file(target: Path, mode: int) -> Iterator[tuple[Path, int | None]]:
    """A new, empty file beside `target`, and the descriptor that holds its lock.

    None on Windows, where a file that is open can be neither renamed nor removed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        beside = target.with_name(PREFIX + secrets.token_hex(8))
        try:
            descriptor = os.open(beside, flags, mode)
        except FileNotFoundError:
            msg = f"path must be in a folder that there is, not in {os.fspath(target.parent)!r}; make it with os.makedirs"
            raise FileNotFoundError(msg) from None
        if fcntl is None:
            os.close(descriptor)
            yield beside, None
            return
        try:
            _lock(descriptor, wait=True)
            if beside.exists():  # else it was swept between its making and its lock
                yield beside, descriptor
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool | None:
    """Whether it is locked now; None where there are no locks, as on some file systems."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _take_over(beside: Path, before: os.stat_result) -> None:
    """Owner and group where this process may, and the mode; where the file system has such."""
    if hasattr(os, "chown"):
        for owner in (before.st_uid, -1):
            with suppress(PermissionError):
                os.chown(beside, owner, before.st_gid)
                break
    with suppress(PermissionError):
        beside.chmod(stat.S_IMODE(before.st_mode))


def _flush(beside: Path, descriptor: int | None) -> None:
    if descriptor is None:
        with beside.open("r+b") as file:
            os.fsync(file.fileno())
    elif hasattr(fcntl, "F_FULLFSYNC"):  # on macOS fsync() leaves it in the cache of the disk
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    """So that the new name is on the disk, too. Windows has no such thing, nor has a folder that may not be read."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what was begun there by processes that are no more, where locks say so."""
    if fcntl is None:
        return
    with suppress(OSError):
        for left in folder.glob(f"{PREFIX}*"):
            with suppress(OSError):
                descriptor = os.open(left, os.O_RDWR)
                try:
                    if _lock(descriptor, wait=False):
                        left.unlink()
                finally:
                    os.close(descriptor)

"""A folder with the last checkpoints of a run."""

from __future__ import annotations

import operator
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._keywords import explained
from ._content import DamagedFileError
from ._run import check_state, restore, save, verify

if TYPE_CHECKING:
    from .. import _core


class Checkpoints:
    """The last checkpoints of a run in a folder, from the newest of which it goes on.

    Parameters
    ----------
    folder : str, bytes or os.PathLike
        It is made when something is saved. Files in it that are not checkpoints are left alone.
    keep : int
        How many are kept, at least 1.

    See Also
    --------
    save

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> params = np.zeros(2)
    >>> state = fm.init(params, lr=0.5)
    >>> checkpoints = fm.Checkpoints(tempfile.mkdtemp(), keep=2)
    >>> checkpoints.restore(params, state)  # None: there is nothing yet
    >>> for _ in range(3):
    ...     fm.step(params, np.ones(2), state)
    ...     path = checkpoints.save(params, state)
    >>> [os.path.basename(path) for path in checkpoints.paths]
    ['checkpoint-000000003.npz', 'checkpoint-000000002.npz']
    """

    @explained
    def __init__(self, folder: str | bytes | os.PathLike[str] | os.PathLike[bytes], keep: int = 3) -> None:
        try:
            self.folder, self.keep = Path(os.fsdecode(folder)).absolute(), operator.index(keep)
        except TypeError as error:
            msg = f"folder must be a path, and keep a whole number, not {folder!r} and {keep!r}"
            raise TypeError(msg) from error
        if self.keep < 1:
            msg = f"keep must be at least 1, not {self.keep}"
            raise ValueError(msg)
        if self.folder.exists() and not self.folder.is_dir():
            msg = f"folder must be a folder, or a new one, not the file {os.fspath(folder)!r}; restore() fills from one file"
            raise NotADirectoryError(msg)
        # Why a file of these marks cannot be read, or None: a save does not read again what is known.
        self._known: dict[tuple[Path, int, int, int], str | None] = {}

    def __repr__(self) -> str:
        return f"Checkpoints({os.fspath(self.folder)!r}, keep={self.keep})"

    def save(self, params: Any, state: _core.State, extra: Any = None) -> str:
        """Save a checkpoint, as `save` does, numbered by the step count; then delete the oldest.

        The newest `keep` of those that are whole stay, and so do those that are not. Only files of such names that
        `fast_momentum.save` has written are deleted. Those of earlier processes are read, once.

        Returns
        -------
        str
            Its path.

        Raises
        ------
        ValueError
            If the folder has a checkpoint of a later step, which `restore` would take for the newest: a run that
            begins anew, or goes on from an earlier file, needs a folder of its own.
        """
        check_state(state)
        steps = state.step_count  # once: another thread may step it
        path = self.folder / _name(steps)
        others = [other for other in self._named() if self._fault(other) is None]
        newest = max(map(_number, others), default=0)
        if newest > steps:
            msg = (
                f"state must have made {newest} steps, as in the newest checkpoint in {os.fspath(self.folder)!r}, "
                f"or more, not {steps}; choose another folder, or move that file away"
            )
            raise ValueError(msg)
        self.folder.mkdir(parents=True, exist_ok=True)
        save(path, params, state, extra)
        self._known[_marks(path)] = None
        for old in [other for other in others if other != path][self.keep - 1 :]:
            with suppress(OSError):
                old.unlink()
        return os.fspath(path)

    @property
    def paths(self) -> list[str]:
        """Those that are whole, newest first. All of them are read."""
        self._known.clear()
        return [os.fspath(path) for path in self._named() if self._fault(path) is None]

    @property
    def unreadable(self) -> dict[str, str]:
        """Those that are not, with the reason. They are not deleted."""
        self._known.clear()
        faults = {os.fspath(path): self._fault(path) for path in self._named()}
        return {path: fault for path, fault in faults.items() if fault is not None}

    def restore(self, params: Any, state: _core.State) -> Any:
        """Fill `params` and `state` from the newest checkpoint that is whole, as `restore` does; return its extra.

        The newest is that of the most steps. None where there is none, or it has no extra; ``state.step_count`` says
        which. Hyperparameters are set to what was saved, too.

        Raises
        ------
        DamagedFileError
            If there are checkpoints, and none is whole.
        ValueError
            If the newest whole one does not fit.
        """
        reasons = []
        for path in self._named():
            try:
                return restore(path, params, state)
            except FileNotFoundError:  # another process has deleted it, as it has newer ones
                return self.restore(params, state)
            except DamagedFileError as error:
                reasons.append(str(error))
        if reasons:
            msg = (
                f"{os.fspath(self.folder)!r} must hold a checkpoint that is whole, not {len(reasons)} that are not, the newest "
                f"of which says: {reasons[0]}; move them away to begin anew"
            )
            raise DamagedFileError(msg)
        return None

    def _fault(self, path: Path) -> str | None:
        """Why it cannot be read; None where it can."""
        marks = _marks(path)
        if marks not in self._known:
            try:
                verify(path)
                self._known[marks] = None
            except (OSError, ValueError) as error:
                self._known[marks] = str(error)
        return self._known[marks]

    def _named(self) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        named = [path for path in self.folder.iterdir() if _number(path) >= 0 and path.is_file()]
        return sorted(named, key=_number, reverse=True)


def _name(number: int) -> str:
    return f"checkpoint-{number:09d}.npz"


def _number(path: Path) -> int:
    """-1 where it has none."""
    found = re.fullmatch(r"checkpoint-([0-9]{9,18})\.npz", path.name)
    return int(found[1]) if found and path.name == _name(int(found[1])) else -1


def _marks(path: Path) -> tuple[Path, int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return path, 0, 0, 0
    return path, found.st_ino, found.st_size, found.st_mtime_ns

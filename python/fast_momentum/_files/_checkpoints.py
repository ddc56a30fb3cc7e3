"""A folder with the last checkpoints of a run."""

from __future__ import annotations

import operator
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._content import Damaged
from ._run import restore, save, verify

if TYPE_CHECKING:
    from .. import _core

_NAME = re.compile(r"checkpoint-(\d+)\.npz")


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

    def __init__(self, folder: str | bytes | os.PathLike[str] | os.PathLike[bytes], keep: int = 3) -> None:
        self.folder = Path(os.fsdecode(folder))
        try:
            self.keep = operator.index(keep)
        except TypeError:
            msg = f"keep must be a whole number, not {type(keep).__name__}"
            raise TypeError(msg) from None
        if self.keep < 1:
            msg = f"keep must be at least 1, not {self.keep}"
            raise ValueError(msg)

    def save(self, params: Any, state: _core.State, extra: Any = None) -> str:
        """Save a checkpoint, as `save` does, numbered by the step count; then delete the oldest.

        Only the newest `keep` of those with other numbers stay, and only files that `save` has written are deleted.

        Returns
        -------
        str
            Its path.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"checkpoint-{state.step_count:09d}.npz"
        save(path, params, state, extra)
        others = [other for other in self._named() if other != path and _is_readable(other)]
        for old in others[self.keep - 1 :]:
            old.unlink(missing_ok=True)
        return os.fspath(path)

    @property
    def paths(self) -> list[str]:
        """Those that are whole, newest first. All of them are read."""
        unreadable = self.unreadable
        return [path for path in map(os.fspath, self._named()) if path not in unreadable]

    @property
    def unreadable(self) -> dict[str, str]:
        """Those that are not, with the reason. They are never deleted."""
        reasons = {}
        for path in self._named():
            try:
                verify(path)
            except (OSError, ValueError) as error:
                reasons[os.fspath(path)] = str(error)
        return reasons

    def restore(self, params: Any, state: _core.State) -> Any:
        """Fill `params` and `state` from the newest checkpoint that is whole, as `restore` does; return its extra.

        None where there is no checkpoint; ``state.step_count`` says whether there was one.

        Raises
        ------
        ValueError
            If there are checkpoints and none is whole, or the newest whole one does not fit.
        """
        named = self._named()
        for path in named:
            try:
                return restore(path, params, state)
            except (Damaged, OSError):
                continue
        if named:
            msg = f"{os.fspath(self.folder)!r} must hold a checkpoint that is whole; see unreadable for what is wrong"
            raise ValueError(msg)
        return None

    def _named(self) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        named = [
            path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and not path.is_symlink()
        ]
        return sorted(named, key=_number, reverse=True)


def _is_readable(path: Path) -> bool:
    """Whether its header is one of save(): that is enough to say who has written it, and does not read it all."""
    try:
        verify(path, header_only=True)
    except (OSError, ValueError):
        return False
    return True


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found
    return int(found[1])

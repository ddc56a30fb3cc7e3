"""Files that hold a run: parameters, state and what the user adds, whole or not at all.

`_content` says what is in them, `_npz` and `_safetensors` how it lies in a file, `_replacing` how a file comes to be,
`_structure` what JSON makes of containers.
"""

from ._checkpoints import Checkpoints
from ._content import DamagedFileError
from ._run import load, restore, save

__all__ = ["Checkpoints", "DamagedFileError", "load", "restore", "save"]

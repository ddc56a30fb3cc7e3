"""Saving and restoring, beside writing and reading as many bytes with the same flushes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

import fast_momentum as fm

PIECE = 1 << 20


class Files:
    """Parameters and velocities, 64 MiB together."""

    param_names = ["suffix"]
    params = [[".npz", ".safetensors"]]

    def setup(self, suffix: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / f"run{suffix}"
        self.arrays = [np.ones((2048, 2048), np.float32) for _ in range(2)]
        self.state = fm.init(self.arrays, lr=0.1)
        self.bytes = memoryview(bytearray(1 << 26))
        fm.save(self.path, self.arrays, self.state)
        self.time_write(suffix)

    def teardown(self, _: str) -> None:
        self.folder.cleanup()

    def time_save(self, _: str) -> None:
        fm.save(self.path, self.arrays, self.state)

    def time_restore(self, _: str) -> None:
        fm.restore(self.path, self.arrays, self.state)

    def time_write(self, _: str) -> None:
        with Path(self.folder.name, "raw").open("wb", buffering=0) as file:
            file.writelines(self.bytes[begin : begin + PIECE] for begin in range(0, len(self.bytes), PIECE))
            os.fsync(file.fileno())
        descriptor = os.open(self.folder.name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def time_read(self, _: str) -> None:
        with Path(self.folder.name, "raw").open("rb", buffering=0) as file:
            for begin in range(0, len(self.bytes), PIECE):
                file.readinto(self.bytes[begin : begin + PIECE])

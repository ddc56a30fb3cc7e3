"""_replacing.py: a process that is killed at any time, and a system call of a save that fails, each once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fast_momentum as fm
from helpers import assert_bits

pytestmark = pytest.mark.python_alone
KILLS = int(os.environ.get("FAST_MOMENTUM_KILLS", "40"))  # `nox -s kills` makes 500


def saving(path: Path, told: int) -> None:
    """Save for ever, one step after the other, and tell which save has returned."""
    params = np.zeros(20_000)
    state = fm.init(params, lr=1.0, momentum=0.0)
    while True:
        fm.step(params, np.full(params.shape, -1.0), state)
        fm.save(path, params, state, state.step_count)
        os.write(told, state.step_count.to_bytes(8, "little"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_killed_at_any_time(path: Path, tmp_path: Path) -> None:
    """The newest save that has returned is there, or a later one, and whole; what a kill leaves, the next save sweeps."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for kill in range(KILLS):
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                saving(path, telling)
            finally:
                os._exit(1)
        os.close(telling)
        first = os.read(told, 8)  # so that something is there
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said = first
        while more := os.read(told, 4096):
            said += more
        os.close(told)
        returned = int.from_bytes(said[-8:], "little")
        params, state, extra = fm.load(path)
        assert extra in (returned, returned + 1), (seed, kill)
        assert state.step_count == extra
        assert (params == extra).all()
        left = [name for name in tmp_path.iterdir() if name.name != path.name]
        assert len(left) <= 1, (seed, kill)
    fm.save(path, params, state)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


CHILD = """
import ctypes, os, sys
import numpy as np
import fast_momentum as fm
if sys.argv[1].endswith(".safetensors"):
    import safetensors

library = ctypes.CDLL(sys.argv[2])
fail_at, fail_with, n_calls = (ctypes.c_int.in_dll(library, name) for name in ("fail_at", "fail_with", "n_calls"))
failed_call = ctypes.c_char_p.in_dll(library, "failed_call")
path = sys.argv[1]
params = np.zeros(3000)
state = fm.init(params, lr=1.0, momentum=0.0)
fm.save(path, params, state, 0)
saved, failed, seen = 0, 0, set()
for number in range(1, 10_000):
    fm.step(params, np.full(params.shape, -1.0), state)
    expected = state.step_count
    n_calls.value, fail_with.value, fail_at.value = 0, (28, 5)[number % 2], number
    try:
        fm.save(path, params, state, expected)
        raised = False
    except OSError:
        raised = True
    finally:
        fail_at.value = 0
    done = n_calls.value < number
    seen.add(failed_call.value.decode())
    loaded, loaded_state, extra = fm.load(path)
    assert (loaded == extra).all() and loaded_state.step_count == extra
    if raised:
        failed += 1
        assert extra in (saved, expected), (extra, saved, expected)
    else:
        assert extra == expected, (number, extra, expected)
    saved = extra
    if done:
        break
    fm.save(path, params, state, saved := expected)
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)], (number, os.listdir(os.path.dirname(path)))
assert not raised
print(number, failed, *sorted(seen))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is of Linux")
def test_each_call_fails_once(path: Path, tmp_path: Path) -> None:
    """An OSError, or a save that did without it; and the old file or the new one is there, whole."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path / "failing_calls.so"
    source = Path(__file__).parent / "failing_calls.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    (tmp_path / "runs").mkdir()
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()  # a sanitizer must come first
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "runs" / path.name, library],
        env={**os.environ, "LD_PRELOAD": preloaded}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls, failed, *seen = done.stdout.split()
    assert int(failed) >= 8  # of which there are many more with a name in Python's own library
    assert int(calls) > int(failed)
    assert {"fsync", "rename", "write"} <= set(seen)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """/dev/full is no file; a limit on the size of files does the same to one."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "run.npz"
    params = np.zeros(100_000)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state, "old")
    fm.step(params, np.ones(100_000), state)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
        with pytest.raises(OSError, match="File too large") as info:
            fm.save(path, params, state, "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert f"while saving {str(path)!r}" in info.value.__notes__
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded, _, extra = fm.load(path)
    assert extra == "old"
    assert_bits(loaded, np.zeros(100_000))

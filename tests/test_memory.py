"""Each allocation of a call fails once: MemoryError, nothing is changed, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

if sys.platform != "linux" or not shutil.which("cc"):
    pytest.skip("needs the C library of GNU, and its compiler", allow_module_level=True)
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    pytest.skip("without a GIL, Python has one allocator alone, its own", allow_module_level=True)
if "FAST_MOMENTUM_SANITIZED" in os.environ:
    pytest.skip("the address sanitizer has an allocator of its own", allow_module_level=True)

# By name: what is called, given what CHILD defines. Not what is written in Python, as to_form()
# and the message about gradients that are not finite: where there is no memory for the iterator of a dict, CPython
# crashes itself.
CALLS = {
    "init": "fm.init(params, lr=0.1)",
    "init with prefixes": "fm.init(params, lr={'a': 0.1, 'b': [0.1, 0.2]}, momentum={'a': 0.1, 'b': 0.2})",
    "init with a dtype": "fm.init(params, lr=0.1, velocity_dtype=np.float16)",
    "init by keyword": "fm.init(params=params, lr=0.1)",
    "adam": "fm.adam(params, lr=0.1, amsgrad=True, clip_norm=1.0, average_decay=0.5)",
    "float16": "fm.init([np.ones(3, np.float16)], lr=0.1)",
    "step": "fm.step(params, grads, state)",
    "step with options": "fm.step(params, grads, state, grad_scale=0.5, zero_grads=False)",
    "clipped step": "fm.step(params, grads, clipped)",
    "step of rows": "fm.step(params, {'a': rows, 'b': grads['b']}, state)",
    "clipped step of rows": "fm.step(params, {'a': rows, 'b': grads['b']}, clipped)",
    "rows": "fm.Rows(indices, grads['a'])",
    "lookahead": "fm.lookahead(params, state)",
    "lookahead by keyword": "fm.lookahead(params=params, state=state, out=None)",
    "global_norm": "fm.global_norm(grads)",
    "state_dict": "state.state_dict()",
    "load_state_dict": "state.load_state_dict(saved)",
    "load_state_dict by keyword": "state.load_state_dict(state_dict=saved, strict=False)",
    "copy": "copy.copy(state)",
    "deepcopy": "copy.deepcopy(state)",
    "pickle": "state.__reduce__()",
    "unpickle": "pickle.loads(pickled)",
    "repr": "repr(state)",
    "velocity": "state.velocity",
    "set a hyperparameter": "state.lr = 0.1",
    "set a prefix": "state.momentum = {'a': 0.1, 'b': 0.2}",
    "set_lr": "state.set_lr(0.1, rescale_velocity=False)",
    "reset": "state.reset(path=\"['a']\")",
    "swap_average": "averaged.swap_average(params)",
    "refused: a keyword": "fm.init(params, lr=0.1, alpha=1)",
    "refused: no state": "fm.step(params, grads)",
    "refused: a shape": "fm.step(params, {'a': np.ones(4), 'b': grads['b']}, state)",
    "refused: a value": "fm.init(params, lr={'a': -1.0, 'b': 1.0})",
}  # fmt: skip

# In which NumPy loses a little itself, as it pickles arrays, or CPython, the arguments of a function in Python.
LOSE = {
    "init with a dtype",
    "pickle",
    "unpickle",
    "refused: a keyword",
    "refused: no state",
    "refused: a shape",
}

CHILD = """
import copy, ctypes, faulthandler, gc, pickle, sys
import numpy as np
import fast_momentum as fm

library = ctypes.CDLL(sys.argv[1])
fail_at, n_calls = (ctypes.c_int.in_dll(library, name) for name in ("fail_at", "n_calls"))
live = ctypes.c_long.in_dll(library, "live")

params = {"a": np.ones(5, np.float32), "b": [np.ones((2, 3)), np.ones(2)]}
grads = {"a": np.ones(5, np.float32), "b": [np.full((2, 3), 2.0), None]}
indices = np.arange(100)[::-1] % 5
rows = fm.Rows(indices, np.ones(100, np.float32))
states = {
    "state": fm.init(params, lr={"a": 0.1, "b": 0.2}),
    "clipped": fm.adam(params, lr=0.1, clip_norm=0.5),
    "averaged": fm.init(params, lr=0.5, average_decay=0.5),
}
for state in states.values():
    fm.step(params, grads, state)
saved, pickled = states["state"].state_dict(), pickle.dumps(states["state"])
names = {**globals(), **states}
code = compile(sys.argv[2], "call", "exec")
before = ctypes.c_long()

def called(number):
    '''The error of a call whose allocation of this number fails; False if it makes fewer.'''
    for name, state in states.items():
        names[name] = copy.copy(state)
    for name, arrays in (("params", params), ("grads", grads)):
        names[name] = {"a": arrays["a"].copy(), "b": [b if b is None else b.copy() for b in arrays["b"]]}
    found = digest()
    error = None
    n_calls.value, fail_at.value = 0, number
    try:
        exec(code, names)
    except BaseException as raised:
        error = raised
    fail_at.value = 0
    if n_calls.value < number:
        return False
    if isinstance(error, (MemoryError, SystemError)):
        assert digest() == found, f"allocation {number} has changed something"
    if not isinstance(error, MemoryError):
        # CPython has no memory for the frame of a traceback, or NumPy none for a result, and does not say so.
        bare = isinstance(error, SystemError) and any(text in str(error) for text in ("error return", "numpy"))
        assert bare or type(error) in (type(None), fine), f"allocation {number} ended in {error!r}"
    return error

def flat(tree):
    if isinstance(tree, (dict, list)):
        return [flat(branch) for branch in (tree.values() if isinstance(tree, dict) else tree)]
    return tree.tobytes() if isinstance(tree, np.ndarray) else repr(tree)

def digest():
    return flat([names["params"], names["grads"], [names[name].state_dict() for name in states]])

fine = BaseException
for _ in range(3):
    try:
        exec(code, dict(names))
        fine = type(None)
    except Exception as error:
        fine = type(error)
number, failed = 0, 0
while (error := called(number := number + 1)) is not False:
    failed += isinstance(error, MemoryError)
    for _ in range(60):  # what is lost is lost each time, and what fills a cache is not
        before.value = live.value
        called(number)
        gc.collect()
        if live.value == before.value or sys.argv[3]:
            break
    else:
        raise AssertionError(f"allocation {number} has lost {live.value - before.value}")
print(number, failed)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = tmp_path_factory.mktemp("memory") / "failing_memory.so"
    source = Path(__file__).with_name("failing_memory.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", built], check=True)
    return str(built)


@pytest.mark.parametrize("call", CALLS)
def test_each_allocation_fails_once(call: str, library: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            CHILD,
            library,
            CALLS[call],
            "loses" if call in LOSE else "",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": library, "PYTHONMALLOC": "malloc"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[:2000]
    allocations, failed = map(int, done.stdout.split())
    assert allocations > 1
    assert failed > 0

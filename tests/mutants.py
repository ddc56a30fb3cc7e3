"""Break the step on purpose and see the test suite notice: a test suite that cannot fail proves nothing.

    nox -s mutants            all of them
    nox -s mutants -- tail    those with "tail" in their name

Works on a copy of the source. Each mutant replaces one piece of it, is built, and must make the tests fail; the copy
as it is must pass them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str


MUTANTS = [
    Mutant("skip the tail", "src/kernel.cpp",
           "const std::size_t end = n - begin < block ? n : begin + block;",
           "const std::size_t end = n - begin < block ? (n > 8 ? n / 8 * 8 : n) : begin + block;"),
    Mutant("forget a store", "src/kernel.cpp",
           "for (std::size_t i = begin; i < end; ++i) param[i] = rule.new_param(param[i], grad[i], velocity[i]);",
           "for (std::size_t i = begin + (end - begin == block ? 8 : 0); i < end; ++i) "
           "param[i] = rule.new_param(param[i], grad[i], velocity[i]);"),
    Mutant("fused multiply-add", "src/update.hpp",
           "return keep * velocity + gain * direction(param, grad);",
           "return T(__builtin_fma(double(keep), double(velocity), double(gain * direction(param, grad))));"),
    Mutant("one element too far", "src/kernel.cpp",
           "for (std::size_t i = begin; i < end; ++i) param[i]",
           "for (std::size_t i = begin; i < end + (n == 5); ++i) param[i]"),
    Mutant("decoupled decay as (1 - lr*w)*p", "src/update.hpp",
           "if constexpr (terms & decoupled_decay) displacement = displacement + decay * param;\n"
           "        return param - displacement;",
           "if constexpr (terms & decoupled_decay) return (1 - decay) * param - displacement;\n"
           "        return param - displacement;"),
    Mutant("first-step flag per call", "src/checks.hpp",
           "+ started[i];", "+ started[0];"),
    Mutant("decay twice", "src/coefficients.cpp",
           "        c.terms |= decoupled_decay;\n",
           "        c.terms |= decoupled_decay | coupled_decay;\n        c.weight_decay = h.weight_decay;\n"),
    Mutant("gradients written", "src/kernel.cpp",
           "        for (std::size_t i = begin; i < end; ++i) param[i] = rule.new_param(param[i], grad[i], velocity[i]);\n",
           "        for (std::size_t i = begin; i < end; ++i) param[i] = rule.new_param(param[i], grad[i], velocity[i]);\n"
           "        for (std::size_t i = begin; i < end; ++i) const_cast<T*>(grad)[i] = rule.direction(param[i], grad[i]);\n"),
    Mutant("partial update before an error", "src/checks.cpp",
           "        const Memory grad = checker.gradient(i, call.others[i]);\n",
           "        if (i == 0 && param.contiguity && velocities[0].size)\n"
           "            param.data[0] ^= 1;\n"
           "        const Memory grad = checker.gradient(i, call.others[i]);\n"
           "        if (i == 0 && param.contiguity && velocities[0].size) param.data[0] ^= 1;\n"),
    Mutant("wrong order on transposed input", "src/checks.cpp",
           "if (first.contiguity & second.contiguity & third.contiguity)",
           "if (first.contiguity && second.contiguity && third.contiguity)"),
    Mutant("stale lr", "src/state.cpp",
           "    numbers_[name] = checked_number(name, value);\n    table_is_stale_ = true;",
           "    numbers_[name] = checked_number(name, value);\n    table_is_stale_ = name != lr;"),
]  # fmt: skip


def build(source: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall",
               "--no-build-isolation", f"-Cbuild-dir={source / 'build'}", str(source)]  # fmt: skip
    subprocess.run(command, check=True)


def failing_test(source: Path) -> str | None:
    """The first test that fails, or None."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=no", "-m", "not large",
               "-p", "no:cacheprovider"]  # fmt: skip
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else f"pytest ended with code {done.returncode}"


def main() -> None:
    wanted = " ".join(sys.argv[1:])
    requirements = ["scikit-build-core>=1.0", "pybind11>=3.0.2", "ninja"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *requirements], check=True)
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        shutil.copytree(
            ROOT, source, ignore=shutil.ignore_patterns("build", ".git", ".nox", ".venv*", "dist")
        )
        build(source)
        failed = failing_test(source)
        if failed:
            sys.exit(f"the source as it is fails its tests: {failed}")
        for mutant in MUTANTS:
            if wanted not in mutant.name:
                continue
            file = source / mutant.file
            original = file.read_text()
            if original.count(mutant.old) != 1:
                sys.exit(f"{mutant.name}: its place in {mutant.file} is gone; bring the mutant up to date")
            file.write_text(original.replace(mutant.old, mutant.new))
            build(source)
            failed = failing_test(source)
            print(f"{mutant.name}: {'caught by ' + failed if failed else 'SURVIVES'}", flush=True)
            if not failed:
                survivors.append(mutant.name)
            file.write_text(original)
    if survivors:
        sys.exit(f"not noticed: {', '.join(survivors)}")


if __name__ == "__main__":
    main()

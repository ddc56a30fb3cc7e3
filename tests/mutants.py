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
    Mutant("skip the tail", "src/kernels/kernel.cpp",
           "const std::size_t length = n - begin < block ? n - begin : block;",
           "const std::size_t length = n - begin < block ? (n > 8 ? (n - begin) / 8 * 8 : n) : block;"),
    Mutant("forget a store", "src/kernels/kernel.cpp",
           "param_line(formula, param + begin, grad + begin, velocity + begin, length);",
           "param_line(formula, param + begin, grad + begin, velocity + begin, length == block ? length - 8 : length);"),
    Mutant("fused multiply-add", "src/kernels/formulas/linear.hpp",
           "return keep * velocity + gain * direction(param, grad);",
           "return T(__builtin_fma(double(keep), double(velocity), double(gain * direction(param, grad))));"),
    Mutant("one element too far", "src/kernels/kernel.cpp",
           "UNROLLED for (std::size_t i = 0; i < n; ++i) param[i]",
           "UNROLLED for (std::size_t i = 0; i < n + (n == 5); ++i) param[i]"),
    Mutant("decoupled decay as (1 - lr*w)*p", "src/kernels/formulas/linear.hpp",
           "displacement = displacement + decay * param;\n        return displacement;",
           "displacement = param - ((1 - decay) * param - displacement);\n        return displacement;"),
    Mutant("first-step flag per call", "src/python/checks.cpp",
           "constants.of(i, steps[i])", "constants.of(i, steps[0])"),
    Mutant("coupled decay in the place of decoupled", "src/plain/rules.cpp",
           "        c.variant += Term::decoupled_decay;\n",
           "        c.variant += Term::coupled_decay;\n"
           "        c.weight_decay = h[Setting::weight_decay];\n"),
    Mutant("gradients written", "src/kernels/kernel.cpp",
           "        param_line(formula, param + begin, grad + begin, velocity + begin, length);\n",
           "        param_line(formula, param + begin, grad + begin, velocity + begin, length);\n"
           "        for (std::size_t i = begin; i < begin + length; ++i)\n"
           "            const_cast<T*>(grad)[i] = formula.direction(param[i], grad[i]);\n"),
    Mutant("partial update before an error", "src/python/checks.cpp",
           "        const Memory grad = checker.gradient<whole>(i, dtype, given, whole && pass.zeroes_grads, stored);\n",
           "        const bool early = i == 0 && kept.velocity()[0].size;\n"
           "        if (early) param.data[0] ^= 1;\n"
           "        const Memory grad = checker.gradient<whole>(i, dtype, given, whole && pass.zeroes_grads, stored);\n"
           "        if (early) param.data[0] ^= 1;\n"),
    Mutant("wrong order on transposed input", "src/python/checks.cpp",
           "if (first.contiguity & second.contiguity & third.contiguity)",
           "if (first.contiguity && second.contiguity && third.contiguity)"),
    Mutant("stale lr", "src/python/state.cpp",
           "settings.exchange(name, item); });\n    is_stale_ = true;",
           "settings.exchange(name, item); });\n    is_stale_ = name != Setting::lr;"),
    Mutant("options of a step that runs", "src/python/state.cpp",
           "pass.settings = &in_force_.common();",
           "pass.settings = &settings_.read([](const Settings& s) { return &s; })->common();"),
    Mutant("steps without a gradient", "src/python/state.cpp",
           "if (grads[i] == Py_None) continue;", ""),
    Mutant("a scaled velocity taken in part", "src/python/state.cpp",
           "    kept_.slots[Slot::velocity]->take(scaled_velocity(factors));",
           "    if (factors.size() != 1) kept_.slots[Slot::velocity]->take(scaled_velocity(factors));"),
    Mutant("arrays of earlier formats as new", "src/python/saved.cpp",
           "return checked_flag(path, value) ? std::max(saved.progress.step_count, 1LL) : 0;",
           "return checked_flag(path, value) ? 0 : 0;"),
    Mutant("an average that is not taken over", "src/python/checkpoint.cpp",
           "if (auto& arrays = kept_.slots[slot.place]) arrays->take(",
           "if (auto& arrays = kept_.slots[slot.place]; arrays && slot.place != Slot::average) arrays->take("),
    Mutant("momentum for nu", "src/plain/rules.cpp", "c.carried = h[Setting::nu];", "c.carried = h[Setting::momentum];"),
    Mutant("a setting of another format", "src/plain/tables.hpp",
           "average_decays, every_rule, settable, 2,", "average_decays, every_rule, settable, 1,"),
    Mutant("bfloat16 cut off", "src/kernels/storage.hpp",
           "(bits + 0x7fffu + last) >> 16", "bits >> 16"),
    Mutant("nothing above 0 kept above it", "src/kernels/storage.hpp",
           "return std::uint16_t((moved > least ? moved : least) >> 16);", "return std::uint16_t(moved >> 16);"),
    Mutant("a file that is not compared with its checksum", "python/fast_momentum/_files/_npz.py",
           "if read.checksum() != member.CRC:", "if False:"),
    Mutant("a sweep without a look at locks", "python/fast_momentum/_files/_replacing.py",
           "if _lock(descriptor, wait=False):", "if True:"),
    Mutant("filled before it is verified", "python/fast_momentum/_files/_run.py",
           "            _verify(reader, wanted)\n            try:", "            try:"),
    Mutant("scales of another block", "src/kernels/kernel.cpp",
           "scales + first / scale_block", "scales"),
    Mutant("unscaled gradients beside a narrow velocity", "src/plain/pass.cpp",
           "update_.partner.storage == &storage && !work_.pass.prepares_grads();",
           "update_.partner.storage == &storage;"),
    Mutant("clip as PyTorch does", "src/python/step.cpp",
           "pass.clip_coefficient = found.norm <= clip_norm ? 1 : clip_norm / found.norm;",
           "pass.clip_coefficient = found.norm < clip_norm ? 1 : clip_norm / (found.norm + 1e-6);"),
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
    survivors = []
    for mutant in MUTANTS:
        if (ROOT / mutant.file).read_text().count(mutant.old) != 1:
            sys.exit(f"{mutant.name}: its place in {mutant.file} is gone; bring the mutant up to date")
    requirements = ["scikit-build-core>=1.0", "pybind11>=3.0.2", "ninja"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *requirements], check=True)
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

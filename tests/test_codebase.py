"""Rules about the built module and about the code itself."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import ISAS, run_python

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
SOURCES = {str(path.relative_to(SRC)): path.read_text() for path in sorted(SRC.glob("**/*pp"))}
FLOORS = ("python", "plain", "kernels")  # each may know those that follow
X86 = platform.machine() in ("x86_64", "AMD64")

# Left by `nox -s tests`: objects, before the linker has seen them.
BUILD = Path(os.environ.get("FAST_MOMENTUM_BUILD_DIR", "nowhere"))
LINUX = platform.system() == "Linux"
on_linux = pytest.mark.skipif(not LINUX, reason="about ELF")
needs_build = pytest.mark.skipif(
    not (LINUX and BUILD.is_dir()), reason="FAST_MOMENTUM_BUILD_DIR names no build folder, or not on Linux"
)


def tool(*command: str | Path) -> str:
    if not shutil.which(str(command[0])):
        pytest.skip(f"needs {command[0]}")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# ---- the built module ----


@pytest.mark.skipif(not X86, reason="the names of x86-64 instructions")
def test_no_fused_multiply_add_instruction() -> None:
    code = tool("objdump", "-d", "--no-show-raw-insn", _core.__file__)
    assert re.search(r"\bv?mul[ps]s\b", code)
    assert re.findall(r"\bvfn?m(?:add|sub)\w*", code) == []
    if (
        LINUX and "FAST_MOMENTUM_SANITIZED" not in os.environ
    ):  # which is not vectorised; MSVC links code of its own
        assert ("ymm" in code) == ("avx2" in _core.config()["instruction sets"])


@on_linux
def test_no_fast_math_start_up_code() -> None:
    assert "set_fast_math" not in tool("nm", "-a", _core.__file__) + tool("nm", "-D", _core.__file__)
    assert "crtfastmath" not in tool("strings", "-a", _core.__file__)


@on_linux
def test_exports_the_init_function_and_nothing_else() -> None:
    exported = tool("nm", "-D", "--defined-only", _core.__file__).split("\n")
    assert [line.split()[-1] for line in exported if line] == ["PyInit__core"]


def test_import_leaves_the_floating_point_mode() -> None:
    code = """
        import ctypes, ctypes.util, sys
        libm = ctypes.CDLL(ctypes.util.find_library("m"))
        def mode():
            environment = (ctypes.c_ubyte * 256)()
            libm.fegetenv(environment)
            words = bytes(environment)
            control = int.from_bytes(words[28:32], "little") & ~0x3F if sys.maxsize > 2**32 else 0
            return libm.fegetround(), control
        import numpy
        before = mode()
        import fast_momentum as fm
        p = numpy.ones(1000, numpy.float32)
        fm.step(p, p.copy(), fm.init(p, lr=0.1))
        assert mode() == before, (mode(), before)
        assert 5e-324 * 1.0 > 0
    """
    if not LINUX:
        pytest.skip("the layout of the environment is that of glibc")
    run_python(code)


@on_linux
def test_relocations_are_read_only() -> None:
    headers = tool("readelf", "-lWd", _core.__file__)
    assert "GNU_RELRO" in headers
    assert "BIND_NOW" in headers or "NOW" in headers
    assert not re.search(r"GNU_STACK.*RWE", headers)


@needs_build
@pytest.mark.parametrize("isa", ISAS)
def test_kernel_objects_define_nothing_outside_their_namespace(isa: str) -> None:
    objects = list(BUILD.glob(f"CMakeFiles/kernel_{isa}.dir/src/kernels/kernel.cpp.o*"))
    assert len(objects) == 1
    symbols = tool("nm", "-C", "--defined-only", objects[0]).splitlines()
    names = [line.split(maxsplit=2)[2] for line in symbols]
    assert any("step<float" in name for name in names)
    # .LC1 and the like are constants of gcc, local to the object.
    inside = re.compile(rf"(void |bool |double |constexpr )?fast_momentum::{isa}::|\.LC\d+$")
    assert [name for name in names if not inside.match(name)] == []
    kinds = {line.split()[1] for line in symbols}
    assert kinds <= set("rRtTVWdD"), "an object that is built at run time"


@needs_build
def test_every_kernel_that_was_built_is_in_the_table() -> None:
    ninja = (BUILD / "build.ninja").read_text()
    built = re.findall(r"^build CMakeFiles/kernel_(\w+)\.dir/src/", ninja, re.MULTILINE)
    assert set(built) == set(_core.config()["instruction sets"])


@needs_build
@pytest.mark.skipif(not X86, reason="the names of x86-64 registers")
def test_the_baseline_has_no_wide_registers() -> None:
    code = tool("objdump", "-d", next(BUILD.glob("CMakeFiles/kernel_baseline.dir/src/kernels/kernel.cpp.o*")))
    assert "xmm" in code
    assert "ymm" not in code


@needs_build
def test_flags_of_every_file() -> None:
    flags = re.findall(r"^  FLAGS = (.*)$", (BUILD / "build.ninja").read_text(), re.MULTILINE)
    assert len(flags) >= 2 + len(ISAS)
    for line in flags:
        assert "-ffp-contract=off" in line
        assert not re.search(r"-ffast-math|-Ofast|-march=native|-funsafe-math|-mfma", line)
    kernels = [line for line in flags if "-O3" in line and "-flto" not in line]
    assert len(kernels) >= len(ISAS), "no link-time optimisation of kernels"


# ---- the code itself ----


def test_the_folder_says_what_a_file_may_know() -> None:
    assert {name.split("/")[0] for name in SOURCES} == set(FLOORS)
    for name, text in SOURCES.items():
        floor = FLOORS.index(name.split("/")[0])
        for included in re.findall(r'#include "([^"]+)"', text):
            assert included in SOURCES, (name, included)
            assert included.split("/")[0] in FLOORS[floor:], (name, included)
        if floor:
            assert not re.search(r"pybind11|Python\.h|PyObject|py::", text), name
        if floor == 2:
            no_templates = {"cfloat", "cstddef", "cstdint", "cstring"}
            assert set(re.findall(r"#include <(\w+)>", text)) <= no_templates, name


def test_the_picture_is_the_house() -> None:
    """Each file is in the picture of docs/development.md, and includes only what stands below it there."""
    picture = (ROOT / "docs" / "development.md").read_text().split("```text\n")[1].split("```")[0]
    rooms: list[str] = []
    for line in picture.splitlines():
        if line.startswith("src/"):
            floor = line.split()[0].removeprefix("src/")
        else:
            rooms.append(floor + line.split()[0])
    assert sorted(rooms) == sorted({str(Path(name).with_suffix("")) for name in SOURCES})
    for name, text in SOURCES.items():
        mine = rooms.index(str(Path(name).with_suffix("")))
        for included in re.findall(r'#include "([^"]+)\.hpp"', text):
            assert rooms.index(included) >= mine, (name, included)


def test_cmake_reads_the_folders() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert set(re.findall(r"src/(\w+)/\*\.cpp", cmake)) == {"python", "plain"}
    listed = set(re.findall(r"src/(\w+/\w+\.cpp)", cmake))
    assert listed == {name for name in SOURCES if name.startswith("kernels/") and name.endswith(".cpp")}


def test_each_file_says_what_it_is_for() -> None:
    for name, text in SOURCES.items():
        if name.endswith(".hpp") or name.replace(".cpp", ".hpp") not in SOURCES:
            assert text.startswith("// "), name
    for path in (ROOT / "python" / "fast_momentum").glob("*.py"):
        assert path.read_text().startswith('"""'), path.name


def test_mutants_fit_the_code() -> None:
    """`nox -s mutants` would find out late that one is no mutant any more, and never that one is not made any more."""
    kept = tomllib.loads((ROOT / "tests" / "data" / "mutants.toml").read_text())
    for mutant in kept["by_hand"]:
        assert (ROOT / mutant["file"]).read_text().count(mutant["old"]) == 1, mutant["name"]
    for text in (text for group in kept["known"] for text in group["mutants"]):
        file, change = text.split(": ", 1)
        assert change.split(" -> ")[0] in " ".join((ROOT / file).read_text().split()), text


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fm.__version__ == _core.__version__ == project["version"]
    assert project["dependencies"] == ["numpy>=2.0"]
    for file, pattern in [("CITATION.cff", r"^version: (.*)$"), ("CHANGELOG.md", r"^## (\S+)")]:
        assert re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)[0] == fm.__version__, file


def test_the_tests_of_a_wheel_have_what_the_readme_links_to() -> None:
    sources = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]["test-sources"]
    links = re.findall(r"\]\(([\w.]+)", (ROOT / "README.md").read_text())
    assert {link for link in links if (ROOT / link).exists()} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)


def test_installed_files() -> None:
    package = Path(fm.__file__).parent
    if Path(_core.__file__).parent != package:
        pytest.skip("this is an editable install, which has no installed files")
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()
    assert (package / "cython_momentum.pxd").exists()
    assert (package / "include" / "fast_momentum.h").exists()
    assert package != ROOT / "python" / "fast_momentum", "the tests must run against the installed package"


def test_a_broken_module_is_a_loud_error(tmp_path: Path) -> None:
    """Without its compiled part the package does not import, and says what to do."""
    package = Path(fm.__file__).parent
    copy = tmp_path / "fast_momentum"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("_core.*.so", "_core.*.pyd"))
    code = "import sys; sys.path[:0] = sys.argv[1:]; import fast_momentum"
    for content in (None, b"not a shared object"):
        if content:
            (copy / Path(_core.__file__).name).write_bytes(content)
        # -S: no .pth file, of which an editable install would be imported in the place of the copy.
        done = subprocess.run([sys.executable, "-S", "-c", code, tmp_path, Path(np.__file__).parents[1]],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode != 0
        assert re.search("^(ImportError|ModuleNotFoundError): ", done.stderr, re.MULTILINE)
        assert "fast_momentum needs its compiled module" in done.stderr
        assert "pip install" in done.stderr

"""isa.cpp: the instruction sets, the one in use, and the variable that takes them away."""

from __future__ import annotations

import os
import warnings

import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import ISAS, run_python

CODE = """
    import warnings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import fast_momentum as fm
    print(fm.show_config("dicts")["in use"])
    for w in caught:
        if w.category is RuntimeWarning:
            print(w.message)
"""


def imported(disabled: str) -> list[str]:
    return run_python(CODE, FAST_MOMENTUM_DISABLE_CPU_FEATURES=disabled).splitlines()


def test_the_fastest_is_the_default() -> None:
    assert imported("") == [ISAS[-1]]
    assert ISAS[0] == "baseline"


@pytest.mark.skipif("avx2" not in ISAS, reason="this CPU or build has no AVX2")
@pytest.mark.parametrize("names", ["AVX2", "avx2", " AVX2 ", "AVX2,AVX2", "avx2 ,\tavx2"])
def test_disabled(names: str) -> None:
    assert imported(names) == [[name for name in ISAS if name != "avx2"][-1]]


@pytest.mark.parametrize("names", ["AVX3", "AVX2 sse9", "baseline", "avx2;x"])
def test_an_unknown_name_does_not_pass_silently(names: str) -> None:
    printed = imported(names)
    assert len(printed) == 2
    unknown = [name for name in names.split() if name not in ("AVX2",)]
    assert printed[1] == (
        "FAST_MOMENTUM_DISABLE_CPU_FEATURES must name instruction sets that this build can do without "
        f"({', '.join(_core.config()['instruction sets']).removeprefix('baseline, ') or 'it has none'}), "
        f"not {', '.join(unknown)}; ignored"
    )


@pytest.mark.skipif(os.name == "nt", reason="the variables of Windows are text")
def test_bytes_that_are_no_text() -> None:
    printed = imported(os.fsdecode(b"\xff"))
    assert printed[1].endswith("not \\udcff; ignored")


def test_a_warning_as_error_stops_the_import() -> None:
    with pytest.raises(AssertionError, match="not AVX3; ignored"):
        run_python(
            "import warnings; warnings.simplefilter('error'); import fast_momentum",
            FAST_MOMENTUM_DISABLE_CPU_FEATURES="AVX3",
        )


def test_unknown_name_for_tests() -> None:
    before = _core.config()["in use"]
    assert not _core.use_isa("avx9")
    assert _core.config()["in use"] == before


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert fm.show_config() is None
    printed = capsys.readouterr().out
    config = fm.show_config("dicts")
    assert config is not None
    for name in config:
        assert f"{name}: " in printed
    assert config["version"] == fm.__version__
    if "MSVC" not in config["compiler"]:
        assert "-ffp-contract=off" in config["flags"]
        assert ("-mavx2" in config["flags"]) == (config["in use"] == "avx2")
    with pytest.raises(ValueError, match=r"^mode must be 'stdout' or 'dicts', not 'yaml'$"):
        fm.show_config("yaml")


def test_import_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_python("import fast_momentum") == ""


def test_the_logger_is_there_for_those_who_ask() -> None:
    code = """
        import logging, sys
        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s: %(message)s")
        import fast_momentum as fm
        assert isinstance(logging.getLogger("fast_momentum").handlers[0], logging.NullHandler)
    """
    found = fm.show_config("dicts")
    expected = f"fast_momentum: instruction set {found['in use']}, threading layer {found['threading layer']}"
    assert run_python(code).strip() == expected

"""Every example in the README, the docs and the docstrings runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import os
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import fast_momentum as fm
from fast_momentum import _config, _core, reference, theory, tuning
from helpers import FORMS

# What the pages call has tests of its own.
pytestmark = pytest.mark.python_alone

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
}

# Where every library that a page imports is installed (`nox -s docs`), a page that cannot run is an error, but for
# those about libraries that are large to install, and there in `nox -s adapters`.
COMPLETE = "FAST_MOMENTUM_DOCUMENTS_COMPLETE" in os.environ
ELSEWHERE = ("flwr", "pennylane")

# What these depend on warns when it is imported.
WARN_AT_IMPORT = ("flwr",)

STATE = {f"State.{name}": getattr(fm.State, name) for name in vars(fm.State) if not name.startswith("_")}
PUBLIC: dict[str, Any] = {
    **{name: getattr(fm, name) for name in fm.__all__ if callable(getattr(fm, name))},
    **STATE,
    **{f"reference.{name}": getattr(reference, name) for name in reference.__all__},
    "reference.State.state_dict": reference.State.state_dict,
    **{f"theory.{name}": getattr(theory, name) for name in theory.__all__ if name[0].islower()},
    **{f"tuning.{name}": getattr(tuning, name) for name in tuning.__all__ if name[0].islower()},
    **{f"tuning.{name}": getattr(tuning, name) for name in ("AutoTuner", "CurvatureWindow", "YellowFin")},
    **{
        f"tuning.CurvatureWindow.{k}": getattr(tuning.CurvatureWindow, k)
        for k in ("add", "add_pair", "range")
    },
}
FUNCTIONS = [name for name, item in PUBLIC.items() if callable(item) and not name.endswith("Error")]


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name: str) -> None:
    text = PUBLIC[name].__doc__
    assert text, f"{name} has no docstring"
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    runner = doctest.DocTestRunner()
    printed: list[str] = []
    runner.run(test, out=printed.append)
    assert runner.failures == 0, "".join(printed)
    if name in FUNCTIONS:
        assert test.examples, f"{name} has no example"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_names_every_parameter(name: str) -> None:
    item, text = PUBLIC[name], inspect.getdoc(PUBLIC[name]) or ""
    if inspect.isclass(item) or (name.startswith("reference.") and name != "reference.update"):
        return
    parameters = [p for p in inspect.signature(item).parameters if p != "self"]
    assert ("Parameters\n----------" in text) == bool(parameters)
    for parameter in parameters:
        assert re.search(rf"^(\w+, )*(\*\*)?{parameter}(, \w+)*( :|$)", text, re.MULTILINE), parameter


def test_public_names() -> None:
    assert set(fm.__all__) == {
        "Checkpoints", "ConcurrentStepError", "DamagedFileError", "NonFiniteGradientError", "OptimizeResult", "Rows", "State",
        "__version__", "get_include", "get_num_threads", "global_norm", "init", "load", "lookahead", "minimize", "reference", "restore", "save",
        "set_num_threads", "show_config", "step", "theory", "tuning",
        *(row["made_by"] for row in _core.rules),
    }  # fmt: skip
    assert fm.show_config is _config.show_config
    assert fm.__version__ == _core.config()["version"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_written_down(form: str) -> None:
    for where, text, pattern in [
        ("the stub", (ROOT / "python/fast_momentum/_core.pyi").read_text(), rf'_Form: .*"{form}"'),
        ("the table of the README", (ROOT / "README.md").read_text(), rf'^\| `"{form}"` \|'),
        ("the table of docs/forms.md", PAGES["docs/forms.md"].read_text(), rf'^\| `"{form}"` \|'),
        ("the formulas of init", fm.init.__doc__, rf"^    {form} +v = "),
        ("the choices of init", fm.init.__doc__, rf"^form : {{.*'{form}'"),
        ("the choices of State.form", STATE["State.form"].__doc__, f"'{form}'"),
        ("the formulas of reference.update", reference.update.__doc__, rf"^ +{form} +v = "),
    ]:
        assert re.search(pattern, text or "", re.MULTILINE), f"{form} is not in {where}"


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page run one after the other; where one prints, the text block after it says what."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGES[name].read_text(), re.DOTALL)
    code = "".join(text for language, text in blocks if language == "python")
    for library in sorted(set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))):
        needed = COMPLETE and library not in ELSEWHERE
        if not needed and importlib.util.find_spec(library) is None:  # a page may have to set up an import
            pytest.skip(f"{library} is not installed")
        if library in WARN_AT_IMPORT:
            with warnings.catch_warnings(action="ignore"):
                importlib.import_module(library)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": Path(name).stem}
    for k, (language, code) in enumerate(blocks):
        if language != "python":
            continue
        printed: list[str] = []
        namespace["print"] = lambda *items, into=printed: into.append(" ".join(map(str, items)))
        exec(compile(code, f"{name}, block {k}", "exec"), namespace)  # noqa: S102 - our own pages
        expected = blocks[k + 1][1] if k + 1 < len(blocks) and blocks[k + 1][0] == "text" else ""
        assert "\n".join(printed).strip() == expected.strip()


def test_ci_calls_the_command_of_the_readme() -> None:
    commands = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tests,) = [command for command in commands if command.endswith("nox -s tests\n")]
    assert tests in (ROOT / ".ci" / "run").read_text()


def test_the_readme_quotes_what_was_measured() -> None:
    """Three rows of docs/field.md, which a command has written."""
    quoted = PAGES["README.md"].read_text().split("<!-- speed -->")[1].split("<!-- end of speed -->")[0]
    rows = [line.split(" | ") for line in quoted.strip().splitlines()[2:]]
    measured = [line.split(" | ") for line in PAGES["docs/field.md"].read_text().splitlines()]
    assert len(rows) == 3
    for program, share, *ratios in rows:
        found = [line for line in measured if line[0] == program]
        assert found, program
        assert share == found[0][2]
        assert [ratio.split()[0] for ratio in ratios] == [ratio.split()[0] for ratio in found[0][3:]]


def test_pages_have_blocks() -> None:
    assert "```python\n" in (ROOT / "README.md").read_text()


def test_readme_links() -> None:
    for name, page in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{name} links to {target}"

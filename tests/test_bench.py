"""`python -m fast_momentum`, and the harness behind it: a contender has to make the same step."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum._bench import field, programs, quick, views
from fast_momentum._bench.contenders import CONTENDERS, add_passes, numpy_add, prepared
from fast_momentum._bench.problems import LR, MOMENTUM, many_arrays, one_array
from fast_momentum._bench.timing import LEAST_ROUNDS, MOST_ROUNDS, TURN, Ratio, Times, interleaved

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.python_alone


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fast_momentum", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["list", "dict"])
@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders_make_the_same_step(name: str, kind: str, dtype: str) -> None:
    problem = many_arrays([(3, 5), (7,)], kind, dtype)
    for array in problem.arrays:
        array[...] = 0  # then a step is all that is left
    expected = [array.copy() for array in problem.arrays]
    calls = prepared(problem, [name])
    if not calls:
        pytest.skip(f"{name} is not installed")
    state = fm.reference.init(expected, lr=LR, momentum=MOMENTUM)
    for _ in range(3):
        fm.reference.step(expected, problem.gradients, state)
        stepped = calls[name]()
    made = stepped if isinstance(stepped, list) else problem.arrays
    for mine, theirs in zip(made, expected, strict=True):
        np.testing.assert_allclose(np.asarray(mine), theirs, rtol=1e-6)


def test_velocities_share_the_memory_of_the_state() -> None:
    params = [np.ones((3, 4), order="F"), np.ones(5)]
    problem = many_arrays([(1,)])
    problem = type(problem)(params, [np.ones((3, 4)), np.ones(5)], fm.init(params, lr=LR))
    for mine, theirs in zip(problem.velocities, problem.state.velocity, strict=True):
        mine[...] = np.arange(mine.size).reshape(mine.shape)
        assert (theirs == mine).all()
        assert np.shares_memory(mine, theirs)


def test_interleaved_counts_calls_and_restores_the_collector() -> None:
    made = {"a": 0, "b": 0}
    times = interleaved({name: lambda name=name: made.update({name: made[name] + 1}) for name in made}, 0.0)
    assert gc.isenabled()
    assert {len(seconds) for seconds in times.seconds.values()} == {LEAST_ROUNDS}
    assert all(count > LEAST_ROUNDS for count in made.values())


class Clock:
    """Time that passes in calls alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.now, self.made = 0.0, dict.fromkeys(seconds, 0)
        self.contenders = {name: lambda name=name: self.pass_(name, seconds[name]) for name in seconds}
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.made[name] += 1


def test_times_and_ratios_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    times = interleaved(Clock(monkeypatch, ours=2**-10, theirs=2**-8).contenders, 0.0)
    assert times.median("ours") == 2**-10
    assert times.ratio("theirs", "ours") == Ratio(4, 4, 4)


def test_short_calls_are_made_many_times_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, short=TURN / 50, long=2 * TURN)
    interleaved(clock.contenders, 0.0)
    # Once and three times to find out; then a turn a round, after a call that is not counted.
    assert clock.made == {"short": 4 + LEAST_ROUNDS * (1 + 50), "long": 4 + LEAST_ROUNDS * (1 + 1)}


def test_a_budget_is_used_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    a_round = 2 * 2 * TURN  # of two contenders, with the calls that are not counted
    for rounds in (LEAST_ROUNDS, LEAST_ROUNDS + 7, MOST_ROUNDS):
        clock = Clock(monkeypatch, a=TURN, b=TURN)
        found = interleaved(clock.contenders, a_round * (rounds - 0.5))
        assert {len(seconds) for seconds in found.seconds.values()} == {rounds}
    assert len(interleaved(clock.contenders, 1e9).seconds["a"]) == MOST_ROUNDS


def test_rows_say_what_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 2 s, NumPy's of 6 s, and an addition of 1 s."""
    seconds = {quick.OURS: 2.0, "NumPy in place": 6.0, quick.ADD: 1.0}
    monkeypatch.setattr(quick, "CASES", {"100k": lambda: one_array(100_000)})
    monkeypatch.setattr(
        quick, "interleaved", lambda calls, _: Times({n: [seconds.get(n, 5.0)] * 5 for n in calls})
    )
    (row,) = quick.measured()
    assert (row.case, row.elements, row.arrays, row.seconds) == ("100k", 100_000, 1, 2.0)
    assert row.bandwidth == 5 * 4 * 100_000 / 2
    assert row.of_roofline == pytest.approx(
        (20 / 18) / 2
    )  # it moves 20 bytes an element while the addition moves 36
    assert row.ratios["NumPy in place"] == Ratio(3, 3, 3)
    assert quick.ADD not in row.ratios


def test_ratio_says_which_is_slower() -> None:
    times = interleaved({"slow": lambda: time.sleep(0.004), "fast": lambda: time.sleep(0.001)}, 0.0)
    ratio = times.ratio("slow", "fast")
    assert ratio.median > 1
    assert ratio.low <= ratio.median <= ratio.high


def test_roofline_counts_bytes() -> None:
    problem = one_array(1000)
    assert problem.moved_bytes == 20 * 1000
    assert add_passes(problem) == pytest.approx(20 * 1000 / (3 * 4 * 1500))
    numpy_add(problem)()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[quick.Row]:
    cases = {"100": lambda: one_array(100), "2 x 3": lambda: many_arrays([(3,)] * 2), "100k": lambda: one_array(100_000),
             "1M": lambda: one_array(1_000_000)}  # fmt: skip
    monkeypatch.setattr(quick, "CASES", cases)
    monkeypatch.setattr(quick, "BUDGET", 0.0)
    return list(quick.measured())


def test_views(rows: list[quick.Row], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert [row.of_roofline is None for row in rows] == [True, True, False, False]
    views.print_plainly(rows)
    printed = capsys.readouterr().out
    for line in ("us", "GB/s", "of np.add", "NumPy in place"):
        assert f"\n{line} " in printed
    found = json.loads(views.as_json(rows))
    assert found["rows"][0]["ratios"]["NumPy in place"]["median"] > 0
    assert found["machine"]["fast_momentum"] == fm.show_config("dicts")
    if views.is_installed("rich"):
        views.print_richly(rows)
        printed = capsys.readouterr().out
        assert "GB/s at 1,000,000 elements" in printed
        assert all(printed.count(name) >= 2 for name in rows[-1].ratios), "in the table and in the chart"
    if views.is_installed("matplotlib"):
        views.save_plot(rows, tmp_path / "plot.svg")
        assert "fast_momentum" in (tmp_path / "plot.svg").read_text()


def test_lines_of_the_plot(rows: list[quick.Row], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Single arrays alone, at their sizes and speeds."""
    pytest.importorskip("matplotlib")
    drawn: dict[str, Any] = {}
    draw = views.bandwidths
    monkeypatch.setattr(views, "bandwidths", lambda lines: drawn.update(lines) or draw(lines))
    views.save_plot(rows, tmp_path / "plot.svg")
    single = [row for row in rows if row.arrays == 1]
    assert [row.elements for row in single] == [100, 100_000, 1_000_000]
    assert drawn.pop(views.OURS) == [(row.elements, row.bandwidth) for row in single]
    assert set(drawn) == set(rows[0].ratios)
    for name, points in drawn.items():
        assert points == [(row.elements, row.bandwidth / row.ratios[name].median) for row in single]
    points = {views.OURS: [(10, 2e9)], "np.add": [(10, 4e9)], "other": [(10, 1e9), (20, 3e9)]}
    (axes,) = draw(points, roofline="np.add").axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {views.OURS: [[10, 2]], "np.add": [[10, 4]], "other": [[10, 1], [20, 3]]}
    dotted = [line.get_label() for line in axes.lines if line.get_linestyle() == ":"]
    assert dotted == ["np.add"]


# ---- whole programs ----


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_programs_end_with_the_same_bits(name: str) -> None:
    try:
        found = programs.PROGRAMS[name]()
    except ImportError as error:
        pytest.skip(str(error))
    assert next(iter(found)) == programs.AS_IT_IS
    assert list(found)[-1] == programs.OURS
    watch = programs.Watch()
    results = {contender: program(watch) for contender, program in found.items()}
    assert watch.seconds > 0
    field.check_same(results)


def test_programs_that_differ_are_noticed() -> None:
    with pytest.raises(AssertionError, match="the same numbers"):
        field.check_same({"a": [np.zeros(2)], "b": [np.zeros(2)], "c": [np.array([0.0, 1e-300])]})


def test_share_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of 8 s: a call of 6 s that is the step, but for the 2 s that it spends in another one."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    def program(watch: programs.Watch) -> list[Any]:
        gradient = watch.rest(lambda: passes(2))
        passes(2)
        watch.step(lambda: (passes(1), gradient(), passes(3)))()
        return []

    timed = field.Timed(program)
    timed()
    timed()
    assert timed.shares == [0.5, 0.5]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[field.Row | field.LeftOut]:
    def missing() -> programs.Programs:
        raise ModuleNotFoundError(name="no_such_library")

    chosen = {"regression": programs.course_regression, "missing": missing}
    monkeypatch.setattr(field, "PROGRAMS", chosen)
    return list(field.measured(budget=0.0))


def test_views_of_programs(found: list[field.Row | field.LeftOut], tmp_path: Path) -> None:
    (row,), (left_out,) = field.split(found)
    assert 0 < row.share < 1
    assert set(row.ratios) == {programs.AS_IT_IS, programs.IN_PLACE}
    printed = field.as_text(found)
    assert "left out: missing, as no_such_library is not installed" in printed
    assert f" {row.share:.1%} " in printed
    assert json.loads(field.as_json(found))["left_out"] == [{"program": "missing", "why": left_out.why}]
    if views.is_installed("matplotlib"):
        (axes,) = field.picture(found).axes
        own, step, ours = axes.containers
        assert own[0].get_width() + step[0].get_width() == pytest.approx(1)
        assert ours[0].get_width() == pytest.approx(1 / row.ratios[programs.AS_IT_IS].median)


def test_without_a_command_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    fm.show_config()
    assert command().stdout == capsys.readouterr().out


def test_version() -> None:
    assert command("--version").stdout == f"fast_momentum {fm.__version__}\n"


def test_bench_as_a_user_runs_it() -> None:
    result = command("bench", "--json")
    assert result.returncode == 0, result.stderr
    assert [row["case"] for row in json.loads(result.stdout)["rows"]] == list(quick.CASES)


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        ("plot.xyz", "--plot must end in one of "),
        ("no/such/folder/plot.png", "--plot must be in a folder that exists, not in "),
    ],
)
def test_a_plot_that_cannot_be_saved_is_refused_before_measuring(plot: str, message: str) -> None:
    result = command("bench", "--plot", plot)
    assert result.returncode == 2
    if not views.is_installed("matplotlib"):
        message = "--plot must have matplotlib, which is not installed. "
    assert message in result.stderr

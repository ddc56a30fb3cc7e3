"""The drawing functions: what they draw, what they refuse, and what they leave alone."""

from __future__ import annotations

import doctest
import itertools
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from helpers import run_python

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fast_momentum import plot

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

pytestmark = pytest.mark.python_alone

PATHS = {f"path {k}": [[k, 2.0], [0.0, 1.0], [0.0, 0.0]] for k in range(7)}
CURVES = {f"curve {k}": (0.9 - k / 10) ** np.arange(30) for k in range(7)}
STEPS = np.arange(1.0, 31)
PREDICTED = {f"curve {k}": (STEPS, 0.9**STEPS + k, 0.8**STEPS + k) for k in range(7)}
LR, MOMENTUM = np.linspace(0.1, 3.0, 40), np.linspace(0.0, 0.9, 30)
RATE = abs(1 - LR) + np.zeros((30, 1))


def bowl(x: Any, y: Any) -> Any:
    return x**2 + 4 * y**2


def trajectories(axes: Axes, **options: Any) -> Axes:
    return plot.trajectories(axes, bowl, PATHS, **options)


def rate_map(axes: Axes, **options: Any) -> Axes:
    return plot.rate_map(axes, LR, MOMENTUM, RATE, **options)


def loss_curves(axes: Axes, **options: Any) -> Axes:
    return plot.loss_curves(axes, CURVES, **options)


def predictions(axes: Axes, **options: Any) -> Axes:
    return plot.predictions(axes, PREDICTED, **options)


def named(axes: Axes, names: Any) -> list[Line2D]:
    return [line for line in axes.lines if line.get_label() in names]


@pytest.fixture
def axes() -> Axes:
    drawn: Axes = Figure(layout="constrained").subplots()
    return drawn


@pytest.mark.parametrize("name", [name for name in plot.__all__ if name.islower()])
def test_docstring(name: str) -> None:
    test = doctest.DocTestParser().get_doctest(getattr(plot, name).__doc__, {}, name, None, None)
    runner = doctest.DocTestRunner()
    printed: list[str] = []
    runner.run(test, out=printed.append)
    assert test.examples
    assert runner.failures == 0, "".join(printed)


@pytest.mark.parametrize(
    ("draw", "labels"),
    [
        (trajectories, ("x", "y")),
        (rate_map, ("lr", "momentum")),
        (loss_curves, ("step", "loss")),
        (predictions, ("step", "")),
    ],
)
def test_axes_are_returned_and_labelled(
    draw: Callable[..., Axes], labels: tuple[str, str], axes: Axes
) -> None:
    before = dict(matplotlib.rcParams)
    assert draw(axes) is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == labels
    assert axes.get_title() == ""
    other = Figure().subplots()
    assert draw(other, title="of this").get_title() == "of this"
    axes.figure.canvas.draw()  # where matplotlib would fail or warn
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("draw", [trajectories, loss_curves, predictions])
def test_labels_of_the_user(draw: Callable[..., Axes], axes: Axes) -> None:
    draw(axes, xlabel="across", ylabel="along")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("across", "along")


@pytest.mark.parametrize(("draw", "names"), [(trajectories, PATHS), (loss_curves, CURVES)])
def test_lines_differ_in_colour_style_and_marker(
    draw: Callable[..., Axes], names: dict[str, Any], axes: Axes
) -> None:
    lines = named(draw(axes), names)
    assert [line.get_label() for line in lines] == list(names)
    assert len({to_rgb(line.get_color()) for line in lines}) == 7
    assert len({line.get_marker() for line in lines}) == 7
    assert len({str(style["linestyle"]) for style in plot.STYLES}) == 7
    assert [line.get_linestyle() for line in lines[:4]] == ["-", "--", "-.", ":"]
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} - {"start"} == set(names)


def luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_styles_stand_out_from_white_and_from_their_neighbour_in_grey() -> None:
    """The contrast that WCAG 2.2 asks of graphics is 3; the last three styles have less and rely on their markers."""

    lights = [luminance(style["color"]) for style in plot.STYLES]
    assert all(1.05 / (light + 0.05) > 3 for light in lights[:4])
    for one, next_one in itertools.pairwise(lights[:4]):
        assert max(one, next_one) + 0.05 > 1.3 * (min(one, next_one) + 0.05)


def test_a_path_is_drawn_whole_with_its_ends(axes: Axes) -> None:
    path = np.array([[3.0, 1.0], [-1.0, 0.5], [0.5, 0.0]])
    plot.trajectories(axes, bowl, {"one": path})
    (line,) = named(axes, ["one"])
    np.testing.assert_array_equal(line.get_xydata(), path)
    (start,) = named(axes, ["start"])
    np.testing.assert_array_equal(start.get_xydata(), path[:1])
    assert any(np.array_equal(other.get_xydata(), path[-1:]) for other in axes.lines)
    low, high = np.transpose([axes.get_xlim(), axes.get_ylim()])
    assert ((path > low) & (path < high)).all()


def test_markers_of_a_zigzag_are_on_both_sides(axes: Axes) -> None:
    zigzag = np.column_stack([np.resize([1.0, -1.0], 70), np.arange(70.0)])
    plot.trajectories(axes, bowl, {"zigzag": zigzag})
    (line,) = named(axes, ["zigzag"])
    marked = zigzag[:: line.get_markevery()]
    assert len(marked) <= 40
    assert set(marked[:, 0]) == {1.0, -1.0}


def test_contours_of_a_parabola_are_at_equal_distances(axes: Axes) -> None:
    heights: list[float] = []

    def parabola(x: Any, y: Any) -> Any:
        return 3 * y**2 + 0 * x

    plot.trajectories(axes, parabola, {"one": [[0, 0]]}, xlim=(0, 1), ylim=(0, 2), levels=4)
    heights = list(axes.collections[-1].levels)
    np.testing.assert_allclose(np.sqrt(np.array(heights) / 3), [0, 0.5, 1, 1.5, 2], atol=1e-12)
    assert axes.get_xlim() == (0, 1)
    assert axes.get_ylim() == (0, 2)


def test_contours_of_the_user(axes: Axes) -> None:
    plot.trajectories(axes, bowl, PATHS, levels=[1, 2, 5])
    assert list(axes.collections[-1].levels) == [1, 2, 5]


def test_edge_of_stability(axes: Axes) -> None:
    rate_map(axes)
    edges = [found for found in axes.collections if list(getattr(found, "levels", [])) == [1]]
    assert len(edges) == 1
    vertices = np.concatenate([path.vertices for path in edges[0].get_paths() if len(path.vertices)])
    np.testing.assert_allclose(vertices[:, 0], 2.0, atol=1e-12)  # |1 - lr| = 1


def test_what_diverges_is_hatched(axes: Axes) -> None:
    rate_map(axes)
    (hatched,) = [found for found in axes.collections if any(getattr(found, "hatches", []) or [])]
    vertices = np.concatenate([path.vertices for path in hatched.get_paths() if len(path.vertices)])
    assert vertices[:, 0].min() == pytest.approx(2.0)  # |1 - lr| = 1
    assert vertices[:, 0].max() == LR.max()


def test_edge_of_stability_before_infinite_rates(axes: Axes) -> None:
    plot.rate_map(axes, LR, MOMENTUM, np.where(RATE > 1, np.inf, RATE))
    (edge,) = [found for found in axes.collections if list(getattr(found, "levels", [])) == [1]]
    vertices = np.concatenate([path.vertices for path in edge.get_paths() if len(path.vertices)])
    below = LR[LR < 2].max()
    assert len(vertices) >= len(MOMENTUM)
    assert ((vertices[:, 0] > below) & (vertices[:, 0] < below + LR[1] - LR[0])).all()


def test_map_that_is_all_stable_or_all_divergent(axes: Axes) -> None:
    for rate in (RATE / 10, RATE + 1.5, np.full_like(RATE, np.inf)):
        drawn = plot.rate_map(Figure().subplots(), LR, MOMENTUM, rate)
        drawn.figure.canvas.draw()
        assert all(list(getattr(found, "levels", [])) != [1] for found in drawn.collections)


def test_regions_are_named_where_they_are(axes: Axes) -> None:
    regimes = np.where(RATE >= 1, "divergent", np.where(LR < 1, "overdamped", "alternating"))
    regimes[:, 20] = "critical"
    rate_map(axes, regimes=regimes, optimum=(1.0, 0.0))
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert set(places) == {"divergent", "overdamped", "alternating"}  # critical is a line
    for name, (lr, momentum) in places.items():
        assert regimes[np.argmin(abs(MOMENTUM - momentum)), np.argmin(abs(LR - lr))] == name
    (star,) = named(axes, ["optimum"])
    np.testing.assert_array_equal(star.get_xydata(), [[1.0, 0.0]])


def test_colorbar(axes: Axes) -> None:
    rate_map(axes, colorbar=False)
    assert len(axes.figure.axes) == 1
    rate_map(axes)
    assert axes.figure.axes[1].get_ylabel() == "rate (factor per step)"


def test_scale_of_curves(axes: Axes) -> None:
    assert loss_curves(axes).get_yscale() == "log"
    assert loss_curves(Figure().subplots(), log=False).get_yscale() == "linear"
    plot.loss_curves(Figure().subplots(), {"falls to 0": [1.0, 0.0]}).figure.canvas.draw()


def test_steps_of_curves(axes: Axes) -> None:
    plot.loss_curves(axes, {"at": ([5, 10], [3.0, 2.0]), "two": [4.0, 1.0], "numbers": (7.0, 6.0)})
    at, two, numbers = axes.lines
    np.testing.assert_array_equal(at.get_xydata(), [[5, 3], [10, 2]])
    np.testing.assert_array_equal(two.get_xydata(), [[0, 4], [1, 1]])
    np.testing.assert_array_equal(numbers.get_xydata(), [[0, 7], [1, 6]])


def test_lines_are_predicted_and_markers_measured(axes: Axes) -> None:
    predictions(axes)
    assert len(axes.lines) == 14
    for line, points, style, (x, measured, predicted) in zip(
        axes.lines[::2], axes.lines[1::2], plot.STYLES, PREDICTED.values(), strict=True
    ):
        np.testing.assert_array_equal(line.get_xydata().T, [x, predicted])
        np.testing.assert_array_equal(points.get_xydata().T, [x, measured])
        assert (line.get_marker(), points.get_linestyle(), points.get_marker()) == (
            "",
            "None",
            style["marker"],
        )
        assert line.get_color() == points.get_color() == style["color"]
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_title().get_text() == "lines predicted, markers measured"
    assert [text.get_text() for text in legend.get_texts()] == list(PREDICTED)
    axes.set(xscale="log", yscale="log")
    axes.figure.canvas.draw()


REFUSED: list[tuple[Callable[[Axes], object], type[Exception], str]] = [
    (lambda axes: loss_curves(axes.figure), TypeError,
     "axes must be matplotlib Axes, not Figure; Figure.subplots() makes them"),
    (lambda axes: rate_map("a"), TypeError,
     "axes must be matplotlib Axes, not str; Figure.subplots() makes them"),
    (lambda axes: trajectories(None), TypeError,
     "axes must be matplotlib Axes, not NoneType; Figure.subplots() makes them"),
    (lambda axes: plot.trajectories(axes, bowl, {}), ValueError, "paths must have 1 to 7 entries, not 0"),
    (lambda axes: plot.trajectories(axes, bowl, {"a": [1.0, 2.0]}), ValueError,
     "paths['a'] must have the shape (n, 2), not (2,)"),
    (lambda axes: plot.trajectories(axes, bowl, {"a": np.ones((2, 3))}), ValueError,
     "paths['a'] must have the shape (n, 2), not (2, 3)"),
    (lambda axes: plot.trajectories(axes, bowl, {"a": np.ones((0, 2))}), ValueError,
     "paths['a'] must have the shape (n, 2), not (0, 2)"),
    (lambda axes: plot.trajectories(axes, lambda x, y: 1.0, PATHS), ValueError,
     "function must return the shape of its arguments, (201, 201), not ()"),
    (lambda axes: plot.rate_map(axes, [[1.0]], MOMENTUM, RATE), ValueError,
     "lr must have the shape (n,) with n at least 2, not (1, 1)"),
    (lambda axes: plot.rate_map(axes, LR, [0.5], RATE), ValueError,
     "momentum must have the shape (n,) with n at least 2, not (1,)"),
    (lambda axes: plot.rate_map(axes, [1.0, 3.0, 2.0], MOMENTUM, RATE), ValueError,
     "lr must rise, not go from 3 to 2"),
    (lambda axes: plot.rate_map(axes, LR, [0.0, np.nan], RATE), ValueError,
     "momentum must rise, not go from 0 to nan"),
    (lambda axes: plot.rate_map(axes, LR, MOMENTUM, RATE.T), ValueError,
     "rate must have a row for each momentum and a column for each lr, (30, 40), not (40, 30)"),
    (lambda axes: rate_map(axes, regimes=["divergent"]), ValueError,
     "regimes must have a row for each momentum and a column for each lr, (30, 40), not (1,)"),
    (lambda axes: plot.loss_curves(axes, {key: [1.0] for key in "abcdefgh"}), ValueError,
     "curves must have 1 to 7 entries, not 8"),
    (lambda axes: plot.loss_curves(axes, {"a": ([1, 2], [1.0])}), ValueError,
     "curves['a'] must have x and values of one shape (n,), not (2,) and (1,)"),
    (lambda axes: plot.loss_curves(axes, {"a": np.ones((3, 2))}), ValueError,
     "curves['a'] must have x and values of one shape (n,), not (6,) and (3, 2)"),
    (lambda axes: plot.loss_curves(axes, {"a": []}), ValueError,
     "curves['a'] must have x and values of one shape (n,), not (0,) and (0,)"),
    (lambda axes: plot.loss_curves(axes, {"a": [0.0, -1.0]}), ValueError,
     "curves['a'] must have a value above 0, not 0 at most; log=False draws it"),
    (lambda axes: predictions([axes]), TypeError,
     "axes must be matplotlib Axes, not list; Figure.subplots() makes them"),
    (lambda axes: plot.predictions(axes, {}), ValueError, "curves must have 1 to 7 entries, not 0"),
    (lambda axes: plot.predictions(axes, {"a": ([1, 2], [1, 2])}), ValueError,
     "curves['a'] must have x, measured and predicted of one shape (n,), not (2,), (2,)"),
    (lambda axes: plot.predictions(axes, {"a": ([1, 2], [1, 2], 3)}), ValueError,
     "curves['a'] must have x, measured and predicted of one shape (n,), not (2,), (2,), ()"),
    (lambda axes: plot.predictions(axes, {"a": ([], [], [])}), ValueError,
     "curves['a'] must have x, measured and predicted of one shape (n,), not (0,), (0,), (0,)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refused(call: Callable[[Axes], object], kind: type[Exception], message: str, axes: Axes) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        call(axes)
    assert not axes.lines
    assert not axes.collections


def test_without_matplotlib() -> None:
    run_python("""
        import sys
        sys.modules["matplotlib"] = None
        try:
            import fast_momentum.plot
        except ImportError as error:
            assert str(error) == (
                "fast_momentum.plot must have matplotlib; pip install matplotlib"
            ), error
        else:
            raise AssertionError
    """)


def test_needs_no_display_and_no_pyplot() -> None:
    run_python("""
        import sys
        from fast_momentum import plot
        assert "matplotlib.pyplot" not in sys.modules
    """)


def test_a_method_has_one_colour(axes: Axes) -> None:
    drawn = {name: [1.0, 0.5] for name in ["Nesterov", "new", "heavy ball, lr 1", "heavy ball, lr 2", "old"]}
    styles = {line.get_label(): line for line in plot.loss_curves(axes, drawn).lines}
    for label, line in styles.items():
        of_method = [style["color"] for name, style in plot.METHODS.items() if label.startswith(name)]
        assert [line.get_color()] == of_method or line.get_color() not in [
            style["color"] for style in plot.METHODS.values()
        ]
    one, two = styles["heavy ball, lr 1"], styles["heavy ball, lr 2"]
    assert one.get_marker() != two.get_marker()
    assert len({(line.get_color(), line.get_marker()) for line in styles.values()}) == len(drawn)


def test_seven_of_one_method(axes: Axes) -> None:
    lines = plot.loss_curves(axes, {f"Adam {k}": [1.0, 0.5] for k in range(7)}).lines
    assert len({line.get_marker() for line in lines}) == 7


@pytest.mark.parametrize("draw", [trajectories, loss_curves, predictions])
def test_direct_labels(draw: Callable[..., Axes], axes: Axes) -> None:
    """Each within the axes, on no other, and in a colour like that of its curve that can be read."""
    axes.figure.set_size_inches(plot.WIDTH, plot.WIDTH)
    draw(axes)
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert plot.direct_labels(axes) is axes
    assert axes.get_legend() is None
    assert {text.get_text() for text in axes.texts} == set(lines)
    boxes = [text.get_window_extent() for text in axes.texts]
    for k, box in enumerate(boxes):
        assert (box.min >= axes.bbox.min).all()
        assert (box.max <= axes.bbox.max).all()
        assert not any(box.overlaps(other) for other in boxes[:k])
    for text in axes.texts:
        ink, curve = np.array(to_rgb(text.get_color())), np.array(to_rgb(lines[text.get_text()].get_color()))
        assert luminance(ink) <= 1.05 / 4.5 - 0.05 + 0.02
        np.testing.assert_allclose(np.cross(ink, curve), 0, atol=1e-12)  # the same hue


def test_a_direct_label_is_nearest_to_its_own_curve(axes: Axes) -> None:
    x = np.linspace(0, 1, 50)
    plot.loss_curves(axes, {"up": (x, 1 + x), "flat": (x, 0 * x + 1), "down": (x, 1 - x)}, log=False)
    plot.direct_labels(axes)
    for text in axes.texts:
        place = text.get_window_extent().get_points().mean(axis=0)
        gaps = {
            line.get_label(): np.hypot(*(axes.transData.transform(line.get_xydata()) - place).T).min()
            for line in axes.lines
        }
        assert min(gaps, key=lambda label: gaps[label]) == text.get_text()

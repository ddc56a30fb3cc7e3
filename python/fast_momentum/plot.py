"""Pictures of how momentum behaves: paths on contours, maps of the rate, curves of losses and of what is predicted. Needs
matplotlib.

Each function draws into the `Axes` that it is handed, labels them and returns them. Colours are those of Okabe and
Ito, which the colour-blind tell apart; line styles and markers differ as well, for print without colour. A method has the
same colour wherever its name begins a label, that of `METHODS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke
except ImportError as error:
    _message = "fast_momentum.plot must have matplotlib; pip install matplotlib"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.lines import Line2D
    from matplotlib.text import Text
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = [
    "METHODS",
    "STYLES",
    "WIDTH",
    "direct_labels",
    "loss_curves",
    "predictions",
    "rate_map",
    "trajectories",
]

# Keywords of `Axes.plot`. Those that differ most in lightness come first; seven is as many as the eye tells apart.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#000000", "linestyle": "-.", "marker": "^"},
    {"color": "#009E73", "linestyle": ":", "marker": "D"},
    {"color": "#CC79A7", "linestyle": (0, (8, 2)), "marker": "v"},
    {"color": "#E69F00", "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "P"},
    {"color": "#56B4E9", "linestyle": (0, (1, 3)), "marker": "X"},
)

# How each method looks, in every picture.
METHODS = {
    "gradient descent": STYLES[0],
    "heavy ball": STYLES[1],
    "Nesterov": STYLES[3],
    "Adam": STYLES[4],
}

WIDTH = 5.0  # inches of a picture: shown as wide as a phone, its letters are still 8 pixels high

RATES = (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1)  # finer where a small difference is many steps
GRID = 201  # points a side at which contours are computed
MARKERS = 40  # at most so many on a path
PIXELS = 4.0  # between places that are tried for a label


def styles(labels: Iterable[str]) -> list[dict[str, Any]]:
    """A style for each label: that of the method whose name it begins with, else the next one that none of them has.

    A second curve of one method has its colour, and a line and a marker of its own. Beside methods, what is none takes
    first what is no method's.
    """
    methods = [next((name for name in METHODS if label.startswith(name)), None) for label in labels]
    used = [METHODS[name] for name in methods if name]
    left = [style for style in STYLES if style not in used]
    free = iter(sorted(left, key=lambda style: style in METHODS.values()) if used else left)
    found: list[dict[str, Any]] = []
    for name in methods:
        style = METHODS[name] if name else next(free)
        if style in found:
            style = {**next(free), "color": style["color"]}
        found.append(style)
    return found


def trajectories(
    axes: Axes,
    function: Callable[[Array, Array], ArrayLike],
    paths: Mapping[str, ArrayLike],
    *,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    levels: int | Sequence[float] = 12,
    xlabel: str = "x",
    ylabel: str = "y",
    title: str | None = None,
) -> Axes:
    """Draw paths over the contours of a function of two variables.

    A square marks where a path begins, a filled marker where it ends. Darker is higher.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Drawn into.
    function : callable
        ``function(x, y)`` on arrays of one shape gives the values there.
    paths : mapping of str to array_like
        The label of each path, and its points in order, of shape (n, 2). At most seven paths.
    xlim, ylim : tuple of two floats, optional
        What is shown. By default all paths and a margin.
    levels : int or sequence of float, default 12
        The contours. A number of them is spaced so that those of a parabola lie at equal distances.
    xlabel, ylabel : str
        Labels of the axes.
    title : str, optional
        None by default.

    Returns
    -------
    matplotlib.axes.Axes
        `axes`.

    Raises
    ------
    TypeError
        If `axes` are no `Axes`.
    ValueError
        If there are no paths or more than seven, or one has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> import fast_momentum as fm
    >>> from fast_momentum import plot
    >>> def ravine(x, y):
    ...     return 5 * x**2 + y**2 / 2
    >>> p = np.array([1.0, 4.0])
    >>> state = fm.init(p, lr=0.05, momentum=0.7)
    >>> points = [p.copy()]
    >>> for _ in range(30):
    ...     fm.step(p, np.array([10 * p[0], p[1]]), state)
    ...     points.append(p.copy())
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot.trajectories(axes, ravine, {"momentum 0.7": points}).get_xlabel()
    'x'
    """
    checked_axes(axes)
    checked_number("paths", len(paths))
    points = {label: checked_path(label, path) for label, path in paths.items()}
    together = np.concatenate(list(points.values()))
    xlim, ylim = xlim or with_margin(together[:, 0]), ylim or with_margin(together[:, 1])
    x, y = np.meshgrid(np.linspace(*xlim, GRID), np.linspace(*ylim, GRID))
    height = np.asarray(function(x, y), np.float64)
    if height.shape != x.shape:
        message = f"function must return the shape of its arguments, {x.shape}, not {height.shape}"
        raise ValueError(message)
    if isinstance(levels, int):
        levels = list(height.min() + np.ptp(height) * np.linspace(0, 1, levels + 1) ** 2)
    axes.contourf(x, y, height, levels, cmap="Greys", alpha=0.35, extend="both", zorder=0)
    axes.contour(x, y, height, levels, colors="0.6", linewidths=0.6, linestyles="solid", zorder=1)
    for (label, path), style in zip(points.items(), styles(points), strict=True):
        every = -(-len(path) // MARKERS) | 1  # odd, so that a zigzag shows markers on both sides
        axes.plot(*path.T, label=label, markersize=3.5, markevery=every, linewidth=1.4, zorder=2, **style)
        axes.plot(
            *path[-1], markersize=8, markeredgecolor="white", zorder=4, **{**style, "linestyle": "none"}
        )
    starts = np.unique([path[0] for path in points.values()], axis=0)
    axes.plot(*starts.T, "s", color="white", markeredgecolor="black", markersize=7, zorder=3, label="start")
    return finished(axes, xlabel, ylabel, title, xlim=xlim, ylim=ylim)


def rate_map(
    axes: Axes,
    lr: ArrayLike,
    momentum: ArrayLike,
    rate: ArrayLike,
    *,
    regimes: ArrayLike | None = None,
    optimum: tuple[float, float] | None = None,
    colorbar: bool = True,
    title: str | None = None,
) -> Axes:
    """Draw the rate, the factor by which the error shrinks per step, over lr and momentum.

    Lighter is faster. A thick line is the edge of stability, rate 1; what lies beyond it diverges and is hatched.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Drawn into; ``axes.set_xscale("log")`` afterwards suits an lr over several decades.
    lr, momentum : array_like
        Of shapes (n,) and (k,), rising, at least two of each.
    rate : array_like
        Of shape (k, n): a row for each momentum, as `fast_momentum.theory.rate` gives it for ``momentum[:, None]``.
    regimes : array_like of str, optional
        Of the shape of `rate`, from `fast_momentum.theory.regime`. Each region is outlined and named.
    optimum : tuple of float, optional
        The lr and the momentum to mark with a star.
    colorbar : bool, default True
        Whether the scale is drawn beside the map.
    title : str, optional
        None by default.

    Returns
    -------
    matplotlib.axes.Axes
        `axes`.

    Raises
    ------
    TypeError
        If `axes` are no `Axes`.
    ValueError
        If the shapes do not fit, or `lr` or `momentum` do not rise.

    Examples
    --------
    Gradient descent on curvatures 1 and 3, with a little momentum and without.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from fast_momentum import plot
    >>> lr, momentum = np.linspace(0.01, 1.0, 50), np.array([0.0, 0.01])
    >>> rate = np.maximum(abs(1 - lr), abs(1 - 3 * lr)) * np.ones((2, 1))
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot.rate_map(axes, lr, momentum, rate, optimum=(0.5, 0.0)).get_ylabel()
    'momentum'
    """
    checked_axes(axes)
    across, up = checked_grid("lr", lr), checked_grid("momentum", momentum)
    rates = np.asarray(rate, np.float64)
    checked_map("rate", rates, (len(up), len(across)))
    names = None if regimes is None else np.asarray(regimes)
    if names is not None:
        checked_map("regimes", names, rates.shape)
    shown = np.minimum(rates, 2)  # contours between a number and infinity are nowhere
    colours = [*colormaps["cividis_r"](np.linspace(0, 1, len(RATES) - 1)), "white"]
    filled = axes.contourf(across, up, shown, RATES, colors=colours, extend="max")
    if shown.max() > 1:
        axes.contourf(across, up, shown, (1, 3), colors="none", hatches=["///"])
        if shown.min() < 1:
            axes.contour(across, up, shown, (1,), colors="black", linewidths=2.2)
    if names is not None:
        for name in np.unique(names):
            outlined(axes, across, up, str(name), names == name)
    if optimum is not None:
        axes.plot(*optimum, "*", color="white", markeredgecolor="black", markersize=15, label="optimum")
        axes.legend(loc="lower right", framealpha=1)
    if colorbar:
        axes.figure.colorbar(filled, ax=axes, ticks=RATES, label="rate (factor per step)")
    return finished(axes, "lr", "momentum", title, legend=False)


def loss_curves(
    axes: Axes,
    curves: Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str = "step",
    ylabel: str = "loss",
    log: bool = True,
    title: str | None = None,
) -> Axes:
    """Draw named curves against the step, on a logarithmic y axis.

    On such an axis a straight line is a constant rate; values that are not above 0 are left out.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Drawn into.
    curves : mapping of str to array_like, or to a tuple of two
        The label of each curve, and its values of shape (n,), at steps 0 to n - 1, or a tuple ``(x, values)`` of
        two such. At most seven curves.
    xlabel, ylabel : str, default "step" and "loss"
        Labels of the axes.
    log : bool, default True
        Whether the y axis is logarithmic.
    title : str, optional
        None by default.

    Returns
    -------
    matplotlib.axes.Axes
        `axes`.

    Raises
    ------
    TypeError
        If `axes` are no `Axes`.
    ValueError
        If there are no curves or more than seven, the shapes do not fit, or no value of a curve is above 0 on a
        logarithmic axis.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fast_momentum import plot
    >>> axes = Figure(layout="constrained").subplots()
    >>> plot.loss_curves(axes, {"a": [1, 0.1, 0.01], "b": ([0, 2], [1, 0.5])}).get_yscale()
    'log'
    """
    checked_axes(axes)
    checked_number("curves", len(curves))
    checked = {label: checked_curve(label, curve, log) for label, curve in curves.items()}
    for k, (style, (label, curve)) in enumerate(zip(styles(checked), checked.items(), strict=True)):
        every = (0.03 * k, 0.2)  # of the diagonal: markers of neighbouring curves stay apart
        axes.plot(*curve, label=label, markersize=5, markevery=every, linewidth=1.6, **style)
    if log:
        axes.set_yscale("log")
    return finished(with_grid(axes), xlabel, ylabel, title)


def predictions(
    axes: Axes,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    *,
    xlabel: str = "step",
    ylabel: str = "",
    title: str | None = None,
) -> Axes:
    """Draw what was measured as markers, and what was predicted as a line below them.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Drawn into; ``axes.set(xscale="log", yscale="log")`` afterwards suits what goes over several decades.
    curves : mapping of str to a tuple of three array_like
        The label of each curve, and ``(x, measured, predicted)``, each of shape (n,). At most seven curves.
    xlabel, ylabel : str, default "step" and ""
        Labels of the axes.
    title : str, optional
        None by default.

    Returns
    -------
    matplotlib.axes.Axes
        `axes`.

    Raises
    ------
    TypeError
        If `axes` are no `Axes`.
    ValueError
        If there are no curves or more than seven, or the shapes do not fit.

    Examples
    --------
    The first steps of Adam along a gradient that stays.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> import fast_momentum as fm
    >>> from fast_momentum import plot, theory
    >>> p, path = np.zeros(1), [0.0]
    >>> state = fm.adam(p, lr=0.1)
    >>> for _ in range(20):
    ...     fm.step(p, np.ones(1), state)
    ...     path.append(p.item())
    >>> t = np.arange(1, 21)
    >>> axes = Figure(layout="constrained").subplots()
    >>> curves = {"Adam": (t, np.diff(path), theory.adam_step(t, 1.0, lr=0.1))}
    >>> plot.predictions(axes, curves, ylabel="displacement").get_xlabel()
    'step'
    """
    checked_axes(axes)
    checked_number("curves", len(curves))
    checked = {label: checked_prediction(label, curve) for label, curve in curves.items()}
    for k, (style, (label, (x, measured, predicted))) in enumerate(
        zip(styles(checked), checked.items(), strict=True)
    ):
        axes.plot(x, predicted, linewidth=1.4, **{**style, "marker": ""})
        points = {**style, "linestyle": "none"}
        every = (0.02 * k, 0.06)  # of the diagonal: the line below stays visible
        axes.plot(x, measured, label=label, markersize=4.5, markevery=every, **points)
    finished(with_grid(axes), xlabel, ylabel, title, legend=False)
    axes.legend(title="lines predicted, markers measured")
    return axes


def direct_labels(axes: Axes) -> Axes:
    """Write the label of each curve beside it, in its colour, in place of a legend.

    Each label goes where it covers no other curve and no other label, and is nearest to its own; where that cannot be, to
    where it covers the least. Call it when the picture is complete and has its size.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        With labelled lines. Their legend is removed.

    Returns
    -------
    matplotlib.axes.Axes
        `axes`.

    Raises
    ------
    TypeError
        If `axes` are no `Axes`.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fast_momentum import plot
    >>> axes = Figure(layout="constrained").subplots()
    >>> _ = plot.loss_curves(axes, {"heavy ball": [1, 0.1, 0.01], "gradient descent": [1, 0.5, 0.2]})
    >>> [text.get_text() for text in plot.direct_labels(axes).texts]
    ['heavy ball', 'gradient descent']
    """
    checked_axes(axes)
    if (legend := axes.get_legend()) is not None:
        legend.remove()
    # Now the curves are where they will be. None and a SubFigure, which cannot, are what matplotlib has a type for, too.
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    labels = [str(line.get_label()) for line in axes.lines]
    curves = [dense(axes, line) for line in axes.lines]
    taken = [text.get_window_extent().padded(2).extents for text in axes.texts]
    for k, (label, line) in enumerate(zip(labels, list(axes.lines), strict=True)):
        if label.startswith("_") or not len(curves[k]):
            continue
        text = axes.text(
            0.5, 0.5, label, transform=axes.transAxes, fontsize="small", va="center", ha="center"
        )
        text.set(color=readable(line.get_color()), in_layout=False, zorder=6)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        others = np.concatenate([np.empty((0, 2)), *(curve for i, curve in enumerate(curves) if i != k)])
        x, y = axes.transAxes.inverted().transform(best_place(axes, text, curves[k], others, taken))
        text.set_position((x, y))
        taken.append(text.get_window_extent().padded(2).extents)
    return axes


def dense(axes: Axes, line: Line2D) -> Array:
    """Points along a line, in pixels, as far as they are within the axes; between markers without a line is nothing."""
    points = np.asarray(line.get_transform().transform(line.get_xydata()), np.float64)
    if line.get_linestyle() != "None" and len(points) > 1:
        gaps = np.hypot(*np.diff(points, axis=0).T)
        counts = np.where(np.isfinite(gaps), np.clip(np.ceil(gaps / PIXELS), 1, 1000), 1).astype(int)
        at = np.concatenate([k + np.arange(n) / n for k, n in enumerate(counts)] + [[len(points) - 1.0]])
        points = np.column_stack([np.interp(at, np.arange(len(points)), column) for column in points.T])
    with np.errstate(invalid="ignore"):
        return points[((points >= axes.bbox.min) & (points <= axes.bbox.max)).all(axis=1)]


def best_place(
    axes: Axes, text: Text, curve: Array, others: Array, taken: Sequence[tuple[float, ...]]
) -> Array:
    """The centre of the label, in pixels."""
    extent = text.get_window_extent()
    half = np.array([extent.width, extent.height]) / 2
    low, high = np.array(axes.bbox.min) + half + 2, np.array(axes.bbox.max) - half - 2
    points = curve[:: max(1, len(curve) // 150)]
    sides = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]) * (half + 4)
    centres = (points[:, None] + sides).reshape(-1, 2)
    inside = ((centres >= low) & (centres <= high)).all(axis=1)
    if not inside.any():
        return np.asarray(np.clip(curve[-1], low, high))
    centres = centres[inside]
    # In pixels: how far each point of a curve is from the label; and the place on the curve from other curves, up to 40.
    gaps = np.maximum(abs(centres[:, None] - np.concatenate([others, curve])) - half, 0).max(axis=2)
    room = gaps[:, : len(others)].min(axis=1, initial=40)
    apart = np.hypot(*np.moveaxis(points[:, None] - others, 2, 0)).min(axis=1, initial=40)
    clear = np.repeat(apart, len(sides))[inside]
    boxes = np.array(taken).reshape(-1, 2, 2)
    middles, halves = boxes.mean(axis=1), np.ptp(boxes, axis=1) / 2
    covered = (abs(centres[:, None] - middles) < half + halves).all(axis=2).sum(axis=1)
    crossed = (gaps < 2).sum(axis=1)
    cost = 1000 * covered + 20 * crossed + 400 * (clear < 3) - 2 * clear - room
    return np.asarray(centres[int(np.argmin(cost))])


def readable(colour: Any) -> tuple[float, ...]:
    """Darker, until its contrast to white is 4.5, which WCAG 2.2 asks of text."""
    rgb = np.array(to_rgb(colour))
    luminance = np.dot([0.2126, 0.7152, 0.0722], rgb**2.2)
    return tuple(rgb * min(1.0, (0.17 / luminance) ** (1 / 2.2))) if luminance else tuple(rgb)


def with_grid(axes: Axes) -> Axes:
    axes.grid(visible=True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def finished(
    axes: Axes,
    xlabel: str,
    ylabel: str,
    title: str | None,
    *,
    legend: bool = True,
    **limits: tuple[float, float],
) -> Axes:
    axes.set(xlabel=xlabel, ylabel=ylabel, **limits)
    if title is not None:
        axes.set_title(title)
    if legend:
        axes.legend()
    return axes


def outlined(axes: Axes, lr: Array, momentum: Array, name: str, region: NDArray[np.bool_]) -> None:
    """Draw the border of a region of the map, and its name where the region is widest."""
    middle = region
    while (inner := eroded(middle)).any():
        middle = inner
    if middle is region:
        return  # nothing but a line, like the critical regime
    axes.contour(lr, momentum, region.astype(float), (0.5,), colors="black", linewidths=1)
    rows, columns = np.nonzero(middle)
    row, column = rows[len(rows) // 2], columns[len(rows) // 2]
    column = np.clip(column, len(lr) // 8, len(lr) - len(lr) // 8 - 1)  # the name stays inside the axes
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2}
    axes.text(lr[column], momentum[row], name, ha="center", va="center", fontsize="small", bbox=box)


def eroded(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the cells that have a neighbour outside; there is nothing beyond the map."""
    padded = np.pad(region, 1)
    return region & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]


def with_margin(values: Array) -> tuple[float, float]:
    margin = 0.12 * float(np.ptp(values)) or 1.0
    return float(values.min()) - margin, float(values.max()) + margin


def checked_axes(axes: object) -> None:
    if not isinstance(axes, Axes):
        message = f"axes must be matplotlib Axes, not {type(axes).__name__}; Figure.subplots() makes them"
        raise TypeError(message)


def checked_number(name: str, number: int) -> None:
    if not 1 <= number <= len(STYLES):
        message = f"{name} must have 1 to {len(STYLES)} entries, not {number}"
        raise ValueError(message)


def checked_path(label: str, path: ArrayLike) -> Array:
    points = np.asarray(path, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        message = f"paths[{label!r}] must have the shape (n, 2), not {points.shape}"
        raise ValueError(message)
    return points


def checked_curve(
    label: str, curve: ArrayLike | tuple[ArrayLike, ArrayLike], log: bool
) -> tuple[Array, Array]:
    if isinstance(curve, tuple) and len(curve) == 2 and np.ndim(curve[1]) > 0:
        x, values = (np.asarray(part, np.float64) for part in curve)
    else:
        values = np.asarray(curve, np.float64)
        x = np.arange(values.size, dtype=np.float64)
    if values.ndim != 1 or values.shape != x.shape or values.size == 0:
        message = (
            f"curves[{label!r}] must have x and values of one shape (n,), not {x.shape} and {values.shape}"
        )
        raise ValueError(message)
    if log and not (values > 0).any():
        message = (
            f"curves[{label!r}] must have a value above 0, not {values.max():g} at most; log=False draws it"
        )
        raise ValueError(message)
    return x, values


def checked_prediction(label: str, curve: tuple[ArrayLike, ArrayLike, ArrayLike]) -> list[Array]:
    parts = [np.asarray(part, np.float64) for part in curve]
    shapes = [part.shape for part in parts]
    if len(parts) != 3 or parts[0].ndim != 1 or parts[0].size == 0 or len(set(shapes)) > 1:
        given = ", ".join(map(str, shapes))
        message = f"curves[{label!r}] must have x, measured and predicted of one shape (n,), not {given}"
        raise ValueError(message)
    return parts


def checked_grid(name: str, values: ArrayLike) -> Array:
    grid = np.asarray(values, np.float64)
    if grid.ndim != 1 or len(grid) < 2:
        message = f"{name} must have the shape (n,) with n at least 2, not {grid.shape}"
        raise ValueError(message)
    k = int(np.argmin(np.diff(grid)))
    if not grid[k] < grid[k + 1]:
        message = f"{name} must rise, not go from {grid[k]:g} to {grid[k + 1]:g}"
        raise ValueError(message)
    return grid


def checked_map(name: str, values: NDArray[Any], shape: tuple[int, int]) -> None:
    if values.shape != shape:
        message = (
            f"{name} must have a row for each momentum and a column for each lr, {shape}, not {values.shape}"
        )
        raise ValueError(message)

r"""
The velocity is a low-pass filter
=================================

The velocity sees a sequence of gradients and nothing else. Fed with :math:`g_t = \cos(\omega t)` it settles
to a cosine of the same frequency, with the gain and the phase of

.. math:: H(\omega) = \frac{1 - m}{1 - m\,e^{-i\omega}}

in the form ``ema``; ``lr_outside`` has 1 in place of :math:`1 - m`, ``lr_inside`` has lr. What all gradients
agree on (:math:`\omega = 0`) passes with gain 1, what changes sign at each step (:math:`\omega = \pi`) with
:math:`(1 - m)/(1 + m)`, 0.053 for 0.9: the zigzag across a ravine fades, the way along it stays. Half of the
power is gone at the cut-off :math:`\cos\omega_c = 1 - (1 - m)^2/(2m)`. Independent noise keeps :math:`(1 -
m)/(1 + m)` of its variance. The price is delay: what is slow arrives :math:`m/(1 - m)` steps late, 9 for 0.9,
99 for 0.99.

Gain, phase and cut-off are measured with sinusoids and agree with the formula to rounding. The variances are
those of 20 000 independent sequences. The picture below is one noisy gradient and what momentum makes of it:
0.99 removes nearly all of the noise, and half of the power of the signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MOMENTA = [0.5, 0.9, 0.99]
FREQUENCIES = np.geomspace(1e-3, 3.1, 40)
SETTLED = 4000  # steps: 0.99 to this power is below the rounding
SEQUENCES = 20_000
PERIOD = 600  # of the signal under the noise


class Found(NamedTuple):
    response: dict[float, NDArray[np.complex128]]  # by momentum, for each of FREQUENCIES
    power: dict[float, float]  # that passes at the predicted cut-off
    variance: dict[float, float]  # of the velocity, for independent noise of variance 1
    signal: Array
    gradient: Array  # signal and noise
    velocity: dict[float, Array]


def velocities(grads: Array, momentum: float) -> Array:
    """The velocity after each row of `grads`."""
    x = np.zeros(grads.shape[1:])
    state = fm.init(x, lr=1.0, momentum=momentum, form="ema")
    velocity = np.empty_like(grads)
    for row, grad in zip(velocity, grads, strict=True):
        fm.step(x, grad, state)
        row[...] = state.velocity
    return velocity


def response(momentum: float, frequencies: Array) -> NDArray[np.complex128]:
    """Gain and phase, fitted to the second half of a run."""
    phases = np.arange(2 * SETTLED)[:, None] * frequencies
    velocity = velocities(np.cos(phases), momentum)[SETTLED:]
    cosines, sines = np.cos(phases[SETTLED:]), -np.sin(phases[SETTLED:])
    fits = [
        np.linalg.lstsq(np.column_stack(c), v)[0]
        for *c, v in zip(cosines.T, sines.T, velocity.T, strict=True)
    ]
    return np.array([complex(*fit) for fit in fits])


def noise_variance(momentum: float) -> float:
    rng = np.random.default_rng(0)
    x = np.zeros(SEQUENCES)
    state = fm.init(x, lr=1.0, momentum=momentum, form="ema")
    for _ in range(1000):
        fm.step(x, rng.standard_normal(SEQUENCES), state)
    return float(np.mean(state.velocity**2))


def experiment() -> Found:
    signal = np.sin(2 * np.pi * np.arange(2 * PERIOD) / PERIOD)
    gradient = signal + np.random.default_rng(0).normal(size=signal.size)
    cutoffs = {m: np.array([theory.cutoff_frequency(m)]) for m in MOMENTA}
    return Found(
        response={m: response(m, FREQUENCIES) for m in MOMENTA},
        power={m: float(np.abs(response(m, cutoffs[m])[0]) ** 2) for m in MOMENTA},
        variance={m: noise_variance(m) for m in MOMENTA},
        signal=signal,
        gradient=gradient,
        velocity={m: velocities(gradient[:, None], m)[:, 0] for m in MOMENTA[1:]},
    )


def draw(found: Found) -> Figure:
    layout: list[Any] = [["gain"], ["phase"], ["signal"]]
    figure = plt.figure(figsize=(plot.WIDTH, 10), layout="constrained")
    axes = figure.subplot_mosaic(layout)
    fine = np.geomspace(FREQUENCIES[0], np.pi, 400)
    for m, style in zip(MOMENTA, plot.STYLES, strict=False):
        predicted = theory.frequency_response(fine, lr=1.0, momentum=m, form="ema")
        measured = found.response[m]
        line, points = {**style, "marker": ""}, {**style, "linestyle": "none", "markersize": 4}
        axes["gain"].loglog(fine, np.abs(predicted), **line)
        axes["gain"].loglog(FREQUENCIES, np.abs(measured), **points, label=f"momentum {m:g}")
        axes["gain"].axvline(theory.cutoff_frequency(m), color=style["color"], linewidth=0.8)
        axes["phase"].semilogx(fine, np.degrees(np.angle(predicted)), **line)
        axes["phase"].semilogx(FREQUENCIES, np.degrees(np.angle(measured)), **points, label=f"momentum {m:g}")
    axes["gain"].axhline(np.sqrt(0.5), color="0.5", linewidth=0.8)
    axes["gain"].set(xlabel="frequency (radians per step)", ylabel="gain")
    axes["gain"].set_title("lines predicted, markers measured", fontsize="small")
    axes["phase"].set(
        xlabel="frequency (radians per step)", ylabel="phase (degrees)", yticks=[-90, -60, -30, 0]
    )

    axes["signal"].plot(found.gradient, color="0.8", linewidth=0.8, label="gradient (momentum 0)")
    axes["signal"].plot(found.signal, color="0.45", linewidth=3, label="its signal")
    for (m, velocity), style in zip(found.velocity.items(), plot.STYLES[1:], strict=False):
        axes["signal"].plot(velocity, **{**style, "marker": ""}, label=f"velocity, momentum {m:g}")
    axes["signal"].set(xlabel="step", ylabel="gradient and velocity (ema)", ylim=(-3, 4.5))
    for panel in axes.values():
        plot.direct_labels(panel)
    return figure


def main() -> None:
    found = experiment()
    for m in MOMENTA:
        predicted = theory.frequency_response(FREQUENCIES, lr=1.0, momentum=m, form="ema")
        error = np.abs(found.response[m] / predicted - 1).max()
        delay = -np.angle(found.response[m][0]) / FREQUENCIES[0]
        print(
            f"momentum {m:g}: gain and phase off by {error:.0e}, power at the cut-off {found.power[m]:.6f}, "
            f"delay {delay:.1f} steps, variance of noise {found.variance[m]:.5f} "
            f"(predicted {theory.variance_reduction(m):.5f})"
        )
    draw(found).savefig("low_pass.png", dpi=150)
    print("Picture: low_pass.png")


if __name__ == "__main__":
    main()

"""Write what the installed version saves of states, and how they go on, for tests/test_formats.py.

    python tests/data/make_formats.py

writes format_N.pickle beside this file, where N is the format of the installed version of fast_momentum: it
is run with the version whose format is wanted, as soon as there is one. Format 1 was made with the code of
commit 60aa579, format 2 with that of c8208c8, and later ones when they came. From format 2 on, ml_dtypes must be installed as well.

The file has a dict of cases by name, each pickled by itself, as some cannot be read without ml_dtypes, and
compressed to half. A case is a dict of `options`, as init() got them (or the function of `rule`); `params`, as they are where `state_dict`
and `pickle` were made; `grads`, of each step that followed, after an average that was swapped had been swapped
back; and `after`, what the parameters and the attributes of the state were in the end.
"""

from __future__ import annotations

import copy
import pickle
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

F2, F4, F8 = np.float16, np.float32, np.float64

# Attributes of a State that steps change. Format 1 has the first two.
KEPT = ("velocity", "step_count", "average", "skipped_steps", "grad_norm",
        "second_moment", "second_moment_maximum", "mean", "iterate")  # fmt: skip


class Model:
    """Parameters and gradients of the same containers, shapes and dtypes."""

    def __init__(self, rng: np.random.Generator, columns: int, half: Any, double: Any) -> None:
        self.rng, self.columns, self.half, self.double = rng, columns, half, double

    def arrays(self) -> Any:
        values = self.rng.standard_normal
        return {
            "w": np.asfortranarray(values((4, self.columns)), F4),
            "enc": [values(5).astype(self.double), (np.asarray(values(), self.half),)],
        }

    def grads(self, kind: str) -> Any:
        found = self.arrays()
        if kind == "None":
            found["enc"][0] = None
        elif kind == "NaN":
            found["w"][1, 2] = np.nan
        return found


def made(
    *, before: str = "all all", after: str = "all None all", end: Callable[[fm.State, Any], object] | None = None,
    columns: int = 3, half: Any = F4, double: Any = F8, **options: Any,
) -> bytes:  # fmt: skip
    """A case: steps with these kinds of gradients before the checkpoint, which `end` prepares, and after it."""
    model = Model(np.random.default_rng(20), columns, half, double)
    params = model.arrays()
    state = getattr(fm, options.get("rule", "init"))(
        params, **{name: value for name, value in options.items() if name != "rule"}
    )
    for kind in before.split():
        fm.step(params, model.grads(kind), state)
    if end:
        end(state, params)
    case = {
        "options": options,
        "params": copy.deepcopy(params),
        "state_dict": state.state_dict(),
        "pickle": pickle.dumps(state),
        "grads": [model.grads(kind) for kind in after.split()],
    }
    if case["state_dict"].get("swapped"):
        state.swap_average(params)
    for grads in case["grads"]:
        fm.step(params, grads, state)
    case["after"] = {"params": params} | {name: getattr(state, name) for name in KEPT if hasattr(state, name)}
    return zlib.compress(pickle.dumps(case), 9)


def cases_of_format_1() -> Iterator[tuple[str, bytes]]:
    for form in ("lr_outside", "lr_inside", "ema"):
        yield form, made(lr=0.1, form=form)
        yield f"{form}, nesterov", made(lr=0.1, form=form, nesterov=True, weight_decay=0.01)
    yield "dampening", made(lr=0.1, dampening=0.3)
    yield "weight_decay", made(lr=0.1, weight_decay=0.01, maximize=True)
    yield "decoupled_weight_decay", made(lr=0.1, weight_decay=0.01, decoupled_weight_decay=True)
    yield "per array", made(lr={"w": 0.1, "enc": [0.2, (0.3,)]}, momentum={"w": 0.5, "enc": 0.9})
    # What the first step of an array does shows with dampening.
    yield "not started", made(lr=0.1, dampening=0.3, before="None None", after="all all")
    yield "never started", made(lr=0.1, dampening=0.3, before="", after="None all")


def rest(state: fm.State, params: Any) -> None:
    state.average_decay = None


def cases_of_format_2() -> Iterator[tuple[str, bytes]]:
    from ml_dtypes import bfloat16

    yield "clip_norm", made(lr=0.1, clip_norm=1.0)
    yield "clip_value", made(lr=0.1, clip_value=0.5)
    yield "skip", made(lr=0.1, dampening=0.3, nonfinite="skip", before="NaN", after="NaN all all")
    yield "skip, clip_norm", made(lr=0.1, nonfinite="skip", clip_norm=1.0, before="all NaN")
    yield "average", made(lr=0.1, average_decay=0.9)
    yield "average, swapped", made(lr=0.1, average_decay=0.9, end=fm.State.swap_average)
    yield "average, at rest", made(lr=0.1, average_decay=0.9, end=rest)
    yield "float16 velocities", made(lr=0.1, velocity_dtype="float16", double=F4)
    yield "bfloat16 velocities", made(lr=0.1, velocity_dtype="bfloat16", double=F4)
    # More than a block of elements, each of which has a scale.
    yield "int8 velocities", made(lr=0.1, velocity_dtype="int8", double=F4, columns=65)
    yield "compensated", made(lr=1e-3, compensated=True, average_decay=0.5)
    for name, half in [("float16", F2), ("bfloat16", bfloat16)]:
        yield f"{name} params", made(lr=1e-3, half=half, double=half)
        yield (
            f"{name} params, average, swapped",
            made(lr=1e-3, half=half, average_decay=0.9, end=fm.State.swap_average),
        )
        yield f"{name} params, compensated", made(lr=1e-3, half=half, compensated=True)
    yield (
        "all at once",
        made(lr=1e-3, form="lr_inside", nesterov=True, weight_decay=0.01, clip_norm=1.0, nonfinite="skip",
             average_decay=0.9, velocity_dtype="int8", half=F2, double=F4, before="None all NaN"),
    )  # fmt: skip


def cases_of_format_3() -> Iterator[tuple[str, bytes]]:
    yield "qhm", made(rule="qhm", lr=0.1, momentum=0.9, weight_decay=0.01)
    yield "qhm, per array", made(rule="qhm", lr=0.1, nu={"w": 0.5, "enc": [0.25, (1.0,)]}, velocity_dtype="int8",
                                 double=F4)  # fmt: skip


def cases_of_format_4() -> Iterator[tuple[str, bytes]]:
    yield "adam", made(rule="adam", lr=0.1, weight_decay=0.01, decoupled_weight_decay=True)
    yield "adam, not started", made(rule="adam", lr=0.1, form="folded", before="None None")
    yield (
        "adam, nesterov",
        made(rule="adam", lr=0.1, nesterov=True, momentum_decay=0.004, before="all None all"),
    )
    yield (
        "adam, amsgrad, per array",
        made(rule="adam", lr=0.1, amsgrad=True, beta1={"w": 0.5, "enc": [0.9, (0.8,)]}),
    )
    yield (
        "adam, float16 moments",
        made(rule="adam", lr=0.1, form="folded_float64", velocity_dtype="float16", double=F4),
    )
    yield "adam, average, swapped", made(rule="adam", lr=0.1, form="uncorrected", average_decay=0.9,
                                         end=fm.State.swap_average)  # fmt: skip
    yield "lion", made(rule="lion", lr=0.1, velocity_dtype="int8", double=F4)
    yield "signum", made(rule="signum", lr=0.1, compensated=True)
    yield "rmsprop", made(rule="rmsprop", lr=0.1, form="lr_inside")
    yield "rmsprop, centered", made(rule="rmsprop", lr=0.1, centered=True, momentum=0.9, half=F2)


def cases_of_format_5() -> Iterator[tuple[str, bytes]]:
    yield "accelerated", made(rule="accelerated", lr=0.1, l1=0.01, before="all None all all")
    yield "accelerated, not started", made(rule="accelerated", lr=0.1, sequence=0.5, before="None")
    yield (
        "accelerated, restart, per array",
        made(rule="accelerated", lr=0.1, sequence="nesterov", restart="gradient", lower={"w": -0.5, "enc": None},
             upper={"w": 1, "enc": [None, (0.5,)]}, half=F2, before="all all all"),
    )  # fmt: skip
    yield "box", made(lr=0.1, lower=-0.5, upper=0.25)


def main() -> None:
    number = fm.init(np.ones(1), lr=0.1).state_dict()["format"]
    cases = dict(cases_of_format_1())
    if number > 1:
        cases.update(cases_of_format_2())
    if number > 2:
        cases.update(cases_of_format_3())
    if number > 3:
        cases.update(cases_of_format_4())
    if number > 4:
        cases.update(cases_of_format_5())
    file = Path(__file__).with_name(f"format_{number}.pickle")
    file.write_bytes(pickle.dumps(cases))
    print(f"{file.name}: {len(cases)} cases, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

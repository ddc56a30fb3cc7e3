"""Random programs over the public interface: after each operation, parameters and state equal those of `reference`, bit
for bit; and what is refused has changed nothing. What they are made of is in fuzz_inputs.py; soak.py runs them for long.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import itertools
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fast_momentum as fm
from fast_momentum import _core, reference
from fast_momentum._containers import at, leaves, mapped, path_of
from fuzz_inputs import (
    BAD_OPTIONS,
    JUNK,
    KINDS_OF_VALUES,
    OTHER_CONTAINERS,
    SEEDS,
    bad_array,
    damaged,
    drawn_grads,
    drawn_options,
    drawn_params,
    drawn_setting,
    laid_out,
    places,
    replaced,
    spoilt,
    turned,
    values_of,
)
from helpers import (
    COPIES,
    ISAS,
    assert_bits,
    assert_guards,
    assert_states_agree,
    base_of,
    both_states,
    copied,
    model_of,
    other_state,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSALS = (TypeError, ValueError, fm.NonFiniteGradientError)
FORMS = sorted({row["form"] for row in _core.rules if row["form"]})
EXTRAS = st.sampled_from([None, {}, {"epoch": 3, "ü": [1.5, True, None, "a\0b"]}, "x", -1e308])
SUFFIXES = [".npz"]
if importlib.util.find_spec("safetensors"):
    SUFFIXES.append(".safetensors")


def fill(expected: reference.State, saved: dict[str, Any]) -> None:
    """Make `expected` what a checkpoint says of all arrays, or of some."""
    for name, value in saved["hyperparameters"].items():
        setattr(expected, name, value)
    for name in ("step_count", "skipped_steps", "grad_norm", "swapped"):
        setattr(expected, name, saved[name])
    if not saved["average"] and expected.steps:
        expected.average = None
    elif saved["average"] and expected.average is None:
        expected.average = copied(model_of(expected))
    for keys in expected.steps:
        path = path_of(keys)
        if path not in saved[expected.keeps[0]]:
            continue
        expected.steps[keys] = saved["steps"][path]
        name = reference.HISTORIES.get(expected.rule)
        expected.histories[keys] = saved[name][path] if name else 1.0
        for name in (*expected.keeps, *(["average"] if saved["average"] else [])):
            at(getattr(expected, name), keys)[...] = saved[name][path]
        for name in ("master", "compensation"):
            if keys in getattr(expected, name):
                getattr(expected, name)[keys][...] = saved[name][path]


def scale_velocities(state: reference.State, lr_before: Any) -> bool:
    """As set_lr() does where they have lr in them; whether it can be done."""
    good = True
    for keys in state.steps:
        velocity = at(state.velocity, keys)
        before, now = float(at(lr_before, keys)), float(at(state.lr, keys))
        if before == now or not velocity.any():
            continue
        if before == 0:
            return False
        with np.errstate(all="ignore"):
            scaled = (velocity.astype(np.float64) * (now / before)).astype(velocity.dtype)
            scaled = reference.round_to(scaled, state.velocity_dtype or velocity.dtype.name)
        good = good and bool((np.isfinite(scaled) | ~np.isfinite(velocity)).all())
        velocity[...] = scaled
    return good


def zero_or_none(leaf: Any) -> Any:
    return None if leaf is None else np.zeros_like(leaf)


def array_or_none(leaf: Any) -> Any:
    return None if leaf is None else np.asarray(leaf)


def values_in(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, fm.Rows) else leaf


def often(times: int, function: Any, **drawn: Any) -> list[Any]:
    """So many rules in place of one: they are drawn alike, and most are about what comes between steps."""
    return [rule(**drawn)(function) for _ in range(times)]


class Programs(RuleBasedStateMachine):
    """`params` and `state` are stepped by the package, `expected` and `expected_state` by the reference."""

    operations = itertools.count()

    # ---- a model ----

    @initialize(data=st.data())
    def make_model(self, data: st.DataObject) -> None:
        self.params = drawn_params(data.draw)
        self.expected = copied(self.params)
        options = drawn_options(data.draw, self.params)
        hypothesis.note(f"{options}")
        self.state, self.expected_state = both_states(self.params, **options)
        self.kept: list[Any] = []  # copies that are stepped no more, with what they must stay
        self.checkpoints: list[Any] = []
        self.good = self.hyperparameters()  # that go together

    @invariant()
    def agrees(self) -> None:
        next(self.operations)
        if not hasattr(self, "state"):
            return
        assert_bits(self.params, self.expected)
        assert_states_agree(self.state, self.expected_state)
        for name, value in self.state.state_dict()["hyperparameters"].items():
            for keys in self.expected_state.steps:
                ours, theirs = at(value, keys), at(getattr(self.expected_state, name), keys)
                assert repr(ours) == repr(reference._plain(theirs)), name
        for of_one_base in self.by_base(self.params).values():
            assert_guards(*of_one_base)

    def teardown(self) -> None:
        fm.set_num_threads(1)
        assert _core.use_isa(ISAS[-1])
        for state, before in getattr(self, "kept", []):
            assert snapshot(state) == before

    # ---- what operations need ----

    @staticmethod
    def by_base(tree: Any) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for _, leaf in leaves(tree):
            if isinstance(leaf, np.ndarray):
                found.setdefault(id(base_of(leaf)), []).append(leaf)
        return found

    def hyperparameters(self) -> dict[str, Any]:
        return {name: getattr(self.expected_state, name) for name in self.expected_state.hyperparameters}

    def set(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            setattr(self.state, name, value)
            setattr(self.expected_state, name, value)

    def are_refused_by_init(self) -> bool:
        """Whether these settings do not go together. What is refused there alone is a momentum of 0 with an option."""
        takes = self.row()["takes"]
        fixed = {name: getattr(self.expected_state, name) for name in reference.FIXED if name in takes}
        options = {**self.hyperparameters(), **fixed}
        options.update({name: 0.5 for name in ("momentum", "beta1") if name in options})
        try:
            getattr(fm, self.row()["made_by"])(self.params, **options)
        except ValueError:
            return True
        return False

    def row(self) -> dict[str, Any]:
        kind = self.state.rule, self.state.form
        return next(row for row in _core.rules if (row["rule"], row["form"]) == kind)

    def takes_rows(self) -> bool:
        state = self.expected_state
        return not (
            state.rule == "accelerated"
            or state.compensated
            or state.velocity_dtype == "int8"
            or state.average_decay is not None
        )

    def make_good(self) -> None:
        """What is saved with settings that do not go together is refused when it is loaded."""
        if self.are_refused_by_init():
            self.set(self.good)

    def refused(self, call: Callable[[], Any], *trees: Any) -> None:
        assert not self.done(call, *trees), "not refused"

    def done(self, call: Callable[[], Any], *trees: Any) -> bool:
        """Whether it is not refused; if it is, it must have changed nothing."""
        before = snapshot(self.state, self.params, *trees)
        done = False
        with contextlib.suppress(*REFUSALS):
            call()
            done = True
        assert done or snapshot(self.state, self.params, *trees) == before
        return done

    # ---- steps, and what goes with them ----

    def one_step(self, data: st.DataObject, scale: float, zero_grads: bool) -> None:
        share = data.draw(st.sampled_from([0.0, 0.5 if self.takes_rows() else 0.05]))
        grads = drawn_grads(data.draw, self.params, are_written=zero_grads, some_rows=share)
        has_rows = any(isinstance(leaf, fm.Rows) for _, leaf in leaves(grads))
        values = mapped(values_in, grads)
        given = copied(values)
        options = {} if scale == 1 else {"grad_scale": scale}  # what is not given takes a shorter way
        options |= {"zero_grads": True} if zero_grads else {}
        params = turned(self.params) if data.draw(st.booleans()) else self.params

        def call() -> None:
            fm.step(params, grads, self.state, **options)

        no_rows = has_rows and not self.takes_rows()
        if self.expected_state.swapped or no_rows or self.are_refused_by_init():
            self.refused(call, values)
            self.set(self.good)
            return
        self.good = self.hyperparameters()
        try:
            reference.step(self.expected, grads, self.expected_state, grad_scale=scale)
        except FloatingPointError:
            self.refused(call, values)
            return
        call()
        assert_bits(values, mapped(zero_or_none, given) if zero_grads else given)
        for of_one_base in self.by_base(values).values() if zero_grads else ():
            assert_guards(*of_one_base)

    def one_setting(self, data: st.DataObject) -> None:
        names = [name for name in self.row()["takes"] if not _core.settings[name]["fixed"]]
        name = data.draw(st.sampled_from(names))
        self.set({name: drawn_setting(data.draw, name, self.params)})

    step, step_2, step_3, step_4, step_5, step_6, step_7, step_8 = often(
        8, one_step, data=st.data(), scale=st.sampled_from([1.0, 1.0, 0.3, 3.7]), zero_grads=st.booleans()
    )
    setting, setting_2, setting_3, setting_4 = often(4, one_setting, data=st.data())

    @rule(data=st.data(), rescales=st.booleans())
    def set_lr(self, data: st.DataObject, rescales: bool) -> None:
        lr = drawn_setting(data.draw, "lr", self.params)
        after = copy.deepcopy(self.expected_state)
        after.lr = lr
        has_lr = rescales and self.state.form == "lr_inside"
        good = scale_velocities(after, self.expected_state.lr) if has_lr else True
        assert self.done(lambda: self.state.set_lr(lr, rescales)) == good
        self.expected_state = after if good else self.expected_state

    @rule(seed=SEEDS, kind=st.sampled_from(KINDS_OF_VALUES))
    def change_params(self, seed: int, kind: str) -> None:
        """As a user does who loads other weights."""
        rng = np.random.default_rng(seed)
        for (_, param), (_, expected) in zip(leaves(self.params), leaves(self.expected), strict=True):
            param[...] = expected[...] = values_of(param.shape, param.dtype, kind, rng)

    @rule(data=st.data(), gives_out=st.booleans())
    def look_ahead(self, data: st.DataObject, gives_out: bool) -> None:
        out = mapped(lambda p: laid_out(data.draw, np.ones_like(p)), self.params) if gives_out else None
        if self.state.rule != "momentum" or self.state.nesterov or self.expected_state.swapped:
            self.refused(lambda: fm.lookahead(self.params, self.state, out), out)
        else:
            found = fm.lookahead(self.params, self.state, out)
            assert_bits(found, reference.lookahead(self.expected, self.expected_state))

    @rule()
    def swap_average(self) -> None:
        if self.expected_state.average is None:
            self.refused(lambda: self.state.swap_average(self.params))
        else:
            self.state.swap_average(self.params)
            self.expected_state.swap_average(self.expected)

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        every = list(self.expected_state.steps)
        chosen = [data.draw(st.sampled_from(every))] if every and data.draw(st.booleans()) else every
        self.state.reset(path_of(chosen[0]) if len(chosen) < len(every) else None)
        for keys in chosen:
            for name in self.expected_state.keeps:
                if name != "iterate":
                    at(getattr(self.expected_state, name), keys)[...] = 0
            if keys in self.expected_state.compensation:
                self.expected_state.compensation[keys][...] = 0
            self.expected_state.steps[keys] = 0
            self.expected_state.histories[keys] = 1.0

    @rule(name=st.sampled_from(FORMS))
    def to_form(self, name: str) -> None:
        self.make_good()
        found: list[Any] = []
        before = snapshot(self.state)
        if self.done(lambda: found.append(self.state.to_form(name))):
            assert snapshot(self.state) == before
            self.go_on_with(found[0])
            self.expected_state.form = name
            fill(self.expected_state, self.state.state_dict())
            self.good = self.hyperparameters()

    @rule(threads=st.sampled_from([1, 2, 3]), isa=st.sampled_from(ISAS))
    def run_on(self, threads: int, isa: str) -> None:
        fm.set_num_threads(threads)
        assert _core.use_isa(isa)

    @rule(data=st.data())
    def norm(self, data: st.DataObject) -> None:
        grads = mapped(array_or_none, drawn_grads(data.draw, self.params, are_written=False))
        assert repr(fm.global_norm(grads)) == repr(reference.global_norm(grads))

    # ---- checkpoints ----

    def go_on_with(self, state: fm.State) -> None:
        """The one before is looked at again in the end."""
        self.kept = [*self.kept[-2:], (self.state, snapshot(self.state))]
        self.state = state

    @rule(name=st.sampled_from(sorted(COPIES)))
    def copy_state(self, name: str) -> None:
        self.make_good()
        self.go_on_with(COPIES[name](self.state))

    @rule()
    def remember(self) -> None:
        self.make_good()
        self.checkpoints = [*self.checkpoints[-2:], (copied(self.expected), self.state.state_dict())]

    @precondition(lambda self: getattr(self, "checkpoints", None))
    @rule(data=st.data(), into_another=st.booleans())
    def go_back(self, data: st.DataObject, into_another: bool) -> None:
        params, saved = self.checkpoints[data.draw(st.integers(0, len(self.checkpoints) - 1))]
        if saved["form"] != self.state.form:
            self.refused(lambda: self.state.load_state_dict(saved))
            return
        if (
            into_another and self.expected_state.steps
        ):  # a checkpoint of no arrays says of no average that there is one
            self.go_on_with(other_state(self.as_in_memory(), self.state))
        self.state.load_state_dict(saved)
        fill(self.expected_state, saved)
        self.good = self.hyperparameters()
        for keys, param in leaves(self.params):
            param[...] = at(self.expected, keys)[...] = at(params, keys)

    @precondition(lambda self: getattr(self, "checkpoints", None))
    @rule(data=st.data())
    def go_back_in_part(self, data: st.DataObject) -> None:
        _, saved = self.checkpoints[data.draw(st.integers(0, len(self.checkpoints) - 1))]
        paths = data.draw(st.sets(st.sampled_from(sorted(saved[self.expected_state.keeps[0]]) or [""])))
        part = {
            name: {path: item for path, item in value.items() if path in paths}
            if isinstance(value, dict) and name != "hyperparameters"
            else value
            for name, value in saved.items()
        }
        if self.done(lambda: self.state.load_state_dict(part, strict=False)):
            fill(self.expected_state, part)
            self.good = self.hyperparameters()

    def as_in_memory(self) -> Any:
        """New parameters in the order of memory of what the state keeps: so int8 takes the same blocks."""
        kept = iter([array for _, array in leaves(model_of(self.expected_state))])
        return mapped(lambda param: np.zeros_like(next(kept), param.dtype), self.params)

    @rule(
        suffix=st.sampled_from(SUFFIXES),
        way=st.sampled_from(["load", "restore", "checkpoints"]),
        extra=EXTRAS,
    )
    def save(self, suffix: str, way: str, extra: Any) -> None:
        self.make_good()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"run{suffix}"
            store = fm.Checkpoints(folder) if way == "checkpoints" else None
            before = snapshot(self.state, self.params)
            if store:
                store.save(self.params, self.state, extra)
            else:
                fm.save(path, self.params, self.state, extra)
            assert snapshot(self.state, self.params) == before
            if way == "load":
                params, state, found = fm.load(path)
            else:
                params = self.as_in_memory()
                state = other_state(params, self.state)
                found = store.restore(params, state) if store else fm.restore(path, params, state)
        assert found == extra
        self.params = params
        self.go_on_with(state)

    # ---- bad input ----

    @rule(data=st.data(), kind=st.sampled_from(["params", "grads", "options", "structure", "overlap"]))
    def bad_step(self, data: st.DataObject, kind: str) -> None:
        params, grads = self.params, drawn_grads(data.draw, self.params, are_written=False)
        options: dict[str, Any] = {}
        every = list(leaves(params))
        if kind == "options":
            name = data.draw(st.sampled_from(sorted(BAD_OPTIONS)))
            options[name] = data.draw(st.sampled_from(BAD_OPTIONS[name]))
        elif kind == "structure" or not every:
            other = data.draw(st.sampled_from(OTHER_CONTAINERS))
            params = replaced(params, data.draw(st.sampled_from(places(params))), lambda _: other)
        else:
            keys = data.draw(st.sampled_from([keys for keys, _ in every]))
            param = at(params, keys)
            if kind == "overlap":
                hypothesis.assume(param.size)
                alike = [
                    p for k, p in every if k != keys and (p.shape, p.dtype) == (param.shape, param.dtype)
                ]
                grads = grads if alike else replaced(grads, keys, lambda _: param)
                params = replaced(params, keys, lambda _: alike[0]) if alike else params
            elif kind == "params":
                bad = bad_array(data.draw, param, is_written=True)
                params = replaced(params, keys, lambda _: bad)
            else:
                bad = bad_array(data.draw, param, is_written=False)
                grads = replaced(grads, keys, lambda _: bad)
        self.refused(lambda: fm.step(params, grads, self.state, **options), params, grads)

    @rule(data=st.data(), way=st.sampled_from(["swap_average", "look_ahead", "save", "restore", "init"]))
    def bad_params(self, data: st.DataObject, way: str) -> None:
        every = [keys for keys, _ in leaves(self.params)]
        hypothesis.assume(every)
        keys = data.draw(st.sampled_from(every))
        bad = bad_array(data.draw, at(self.params, keys), is_written=True)
        params = replaced(self.params, keys, lambda _: bad)
        hypothesis.assume(params is not None)  # as `out`, that is no refusal
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.npz"
            if way == "restore":
                self.make_good()
                fm.save(path, self.params, self.state)
            calls: dict[str, Callable[[], Any]] = {
                "swap_average": lambda: self.state.swap_average(params),
                "look_ahead": lambda: fm.lookahead(self.params, self.state, params),
                "save": lambda: fm.save(path, params, self.state),
                "restore": lambda: fm.restore(path, params, self.state),
                "init": lambda: getattr(fm, self.row()["made_by"])(params, lr=0.1),
            }
            if way in ("save", "init"):  # which take what is read-only, and other dtypes
                self.done(calls[way], params)
            else:
                self.refused(calls[way], params)

    @rule(data=st.data(), junk=st.sampled_from(JUNK))
    def bad_setting(self, data: st.DataObject, junk: Any) -> None:
        """Where it happens to be a good one, it counts."""
        name = data.draw(st.sampled_from(self.expected_state.hyperparameters))
        if self.done(lambda: setattr(self.state, name, junk)):
            found = self.state.state_dict()["hyperparameters"][name]
            setattr(self.expected_state, name, found)

    @rule(data=st.data())
    def bad_checkpoint(self, data: st.DataObject) -> None:
        """Of now, or of an earlier step, which has other values. What is taken all the same can be saved and loaded."""
        self.make_good()
        known = [self.state.state_dict(), *(saved for _, saved in self.checkpoints)]
        bad = spoilt(data.draw, known[data.draw(st.integers(0, len(known) - 1))])
        if self.done(lambda: self.state.load_state_dict(bad)):
            fill(self.expected_state, self.state.state_dict())
            self.state.load_state_dict(self.state.state_dict())
            self.good = self.hyperparameters()

    @rule(data=st.data())
    def bad_pickle(self, data: st.DataObject) -> None:
        self.make_good()
        function, arguments = self.state.__reduce__()
        bad = spoilt(data.draw, arguments)
        found: list[Any] = []
        if self.done(lambda: found.append(function(*bad))):
            [state] = found
            again = pickle.loads(pickle.dumps(state))
            assert snapshot(again) == snapshot(state)

    @rule(data=st.data(), suffix=st.sampled_from(SUFFIXES))
    def bad_file(self, data: st.DataObject, suffix: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"run{suffix}"
            self.make_good()
            fm.save(path, self.params, self.state)
            path.write_bytes(damaged(data.draw, path.read_bytes()))
            params = self.as_in_memory()
            state = other_state(params, self.state)
            before = snapshot(state, params)
            try:
                fm.restore(path, params, state)
            except fm.DamagedFileError:
                assert snapshot(state, params) == before
            else:
                assert_bits(params, self.params)
                assert snapshot(state) == snapshot(self.state)

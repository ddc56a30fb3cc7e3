"""The tables of src/plain: what is written beside them agrees with them, and each rule is whole."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _containers, _core, _keywords, reference, theory
from helpers import (
    FORMAT,
    HALVES,
    KINDS,
    OPTIONS,
    assert_bits,
    assert_states_agree,
    both_states,
    kind_of,
    make,
    option_id,
    random_like,
    snapshot,
)

ROOT = Path(__file__).resolve().parents[1]
STUB = ast.parse((ROOT / "python" / "fast_momentum" / "_core.pyi").read_text())
GOLDEN = json.loads((Path(__file__).parent / "data" / "family.json").read_text())["cases"]

RULES: dict[str, list[dict[str, Any]]] = {}  # the rows of each
for _row in _core.rules:
    RULES.setdefault(_row["rule"], []).append(_row)
OTHERS = [name for name in RULES if name != "momentum"]
NUMBERS = [name for name, setting in _core.settings.items() if setting["kind"] == "number"]


def keywords(rule: str) -> dict[str, Any]:
    """The keywords of the function that makes a state of the rule, in order, with their defaults."""
    rows = RULES[rule]
    taken = [name for name in _core.settings if any(name in row["takes"] for row in rows)]
    return {name: rows[0]["defaults"].get(name, inspect.Parameter.empty) for name in taken}


def written(function: Any) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())
    assert parameters[0].name == "params"
    assert {p.kind for p in parameters[1:]} == {inspect.Parameter.KEYWORD_ONLY}
    return {p.name: p.default for p in parameters[1:]}


# ---- what is written beside the tables ----


@pytest.mark.parametrize("rule", RULES)
def test_signatures(rule: str) -> None:
    made_by = RULES[rule][0]["made_by"]
    for package in (fm, reference):
        found = written(getattr(package, made_by))
        assert found == keywords(rule)
        assert list(found) == list(keywords(rule))
    assert made_by in fm.__all__
    assert made_by in reference.__all__
    assert f".. autofunction:: {made_by}\n" in (ROOT / "docs" / "api.md").read_text()


@pytest.mark.parametrize("rule", RULES)
def test_the_docstring_has_each_keyword(rule: str) -> None:
    doc = inspect.getdoc(getattr(fm, RULES[rule][0]["made_by"])) or ""
    for name in keywords(rule):
        assert f"\n{name} : " in doc
    for section in ("Parameters", "Returns", "Raises", "Notes", "References", "Examples"):
        assert f"\n{section}\n---" in doc
    assert f"'{rule}'" in (fm.State.rule.__doc__ or "")


def test_the_stub_says_what_is_public() -> None:
    [names] = [
        n.value for n in STUB.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
    ]
    assert sorted(ast.literal_eval(names)) == sorted(_core.__all__)


def test_the_documentation_says_the_format() -> None:
    assert f'"format": {FORMAT},' in (fm.State.state_dict.__doc__ or "")


def test_the_stub_has_each_setting() -> None:
    [state] = [node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == "State"]
    found: dict[str, set[str]] = {}
    for node in state.body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, set()).update(ast.unparse(d) for d in node.decorator_list)
    for name in {slot for row in _core.rules for slot in row["keeps"]}:
        assert found.get(name) == {"property"}, name
    for name, setting in _core.settings.items():
        expected = {"property"} if setting["fixed"] else {"property", f"{name}.setter"}
        assert found.get(name) == expected, name


@pytest.mark.parametrize("rule", RULES)
def test_the_stub_has_each_rule(rule: str) -> None:
    made_by = RULES[rule][0]["made_by"]
    [function] = [node for node in STUB.body if isinstance(node, ast.FunctionDef) and node.name == made_by]
    defaults = [
        ast.literal_eval(default) if default else inspect.Parameter.empty
        for default in function.args.kw_defaults
    ]
    found = dict(zip((a.arg for a in function.args.kwonlyargs), defaults, strict=True))
    assert found == keywords(rule)
    assert list(found) == list(keywords(rule))


def test_theory_knows_each_number_and_flag() -> None:
    from fast_momentum.theory._rule import Hyperparameters

    taken = {name for row in _core.rules if row["linear"] for name in row["takes"]}
    kinds = {name for name in taken if _core.settings[name]["kind"] in ("number", "flag")}
    of_a_step = {name for name in kinds if not _core.settings[name]["fixed"]}
    assert set(Hyperparameters.__annotations__) | {"lr"} == of_a_step | {"rule", "form"}


# ---- each rule is whole ----


def params_of(rng: np.random.Generator) -> dict[str, Any]:
    return {"w": [random_like((3, 5), np.float32, rng), random_like((600,), np.float32, rng)], "b": random_like((4,), np.float64, rng)}  # fmt: skip


def grads_of(params: Any, rng: np.random.Generator) -> Any:
    return _containers.mapped(lambda p: random_like(p.shape, p.dtype, rng), params)


def per_array(name: str) -> Any:
    """Numbers in the range of each setting, one for each array."""
    return {"w": [0.25, 0.125], "b": 0.5} if name != "dampening" else {"w": [0.25, 0.0], "b": 0.5}


@pytest.mark.parametrize("options", OPTIONS, ids=option_id)
def test_numbers_per_array(options: dict[str, Any], rng: np.random.Generator) -> None:
    """Each number of the rule as a prefix: steps, checkpoints, pickles, copies and the reference agree on it."""
    row = next(
        r
        for r in _core.rules
        if r["rule"] == options.get("rule", "momentum") and r["form"] == options.get("form")
    )
    taken = [name for name in NUMBERS if name in row["takes"]]
    if options.get("nesterov"):
        taken.remove("dampening") if "dampening" in taken else None
    given = {**options, **{name: per_array(name) for name in taken}}
    params = params_of(rng)
    expected = copy.deepcopy(params)
    state, expected_state = both_states(params, **given)
    for t in range(3):
        grads = grads_of(params, rng)
        if t == 1:
            grads["w"][0] = None  # this array makes a step less
        fm.step(params, grads, state)
        reference.step(expected, grads, expected_state)
        assert_bits(params, expected)
    assert_states_agree(state, expected_state)
    fresh = make(fm, params, **kind_of(state), lr=9.0)
    fresh.load_state_dict(state.state_dict())
    for other in (fresh, copy.copy(state), pickle.loads(pickle.dumps(state))):
        assert snapshot(other) == snapshot(state)
        assert (other.rule, other.form) == (state.rule, state.form)
        for name in taken:
            assert getattr(other, name) == getattr(state, name)
            assert _containers.at(getattr(other, name), ("w", 1)) == per_array(name)["w"][1]
    from_reference = make(fm, params, **kind_of(state), lr=9.0)
    from_reference.load_state_dict(expected_state.state_dict())
    assert snapshot(from_reference) == snapshot(state)


@pytest.mark.parametrize("options", KINDS, ids=option_id)
@pytest.mark.parametrize(
    "more",
    [{"velocity_dtype": "bfloat16"}, {"velocity_dtype": "float16"}, {"velocity_dtype": "int8"}, {"compensated": True},
     {"clip_norm": 1.0, "average_decay": 0.5}, {"compensated": True, "velocity_dtype": "int8", "clip_value": 0.5}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_with_all_that_a_step_can_do(
    options: dict[str, Any], more: dict[str, Any], kind: str, rng: np.random.Generator
) -> None:
    if kind not in {dtype.name for dtype in [np.dtype("float32"), *HALVES]}:
        pytest.skip("ml_dtypes, which has bfloat16, is not installed")
    dtype = next(d for d in [np.dtype("float32"), *HALVES] if d.name == kind)
    params = {"w": random_like((7, 100), dtype, rng), "b": random_like((3,), dtype, rng).T}
    expected = copy.deepcopy(params)
    options = {"lr": 0.05, "weight_decay": 0.01, **options, **more}
    if more.get("velocity_dtype") == "int8" and "second_moment" in RULES[options["rule"]][0]["keeps"]:
        with pytest.raises(
            ValueError, match="^velocity_dtype must be None, 'float32', 'float16' or 'bfloat16' in"
        ):
            make(fm, params, **options)
        return
    state, expected_state = both_states(params, **options)
    for _ in range(3):
        grads = grads_of(params, rng)
        fm.step(params, grads, state)
        reference.step(expected, grads, expected_state)
        assert_bits(params, expected)
        assert_states_agree(state, expected_state)


@pytest.mark.parametrize("rule", OTHERS)
def test_what_a_rule_does_not_take_is_no_keyword_and_no_attribute(rule: str) -> None:
    w = np.ones(2)
    state = make(fm, w, rule=rule, lr=0.1)
    for name in set(_core.settings) - set(keywords(rule)) - {"form"}:
        with pytest.raises(
            TypeError, match=rf"^{RULES[rule][0]['made_by']}\(\) must not have the keyword {name}; "
        ):
            getattr(fm, RULES[rule][0]["made_by"])(w, lr=0.1, **{name: 0.5})
        message = f"^a State of the rule {rule} has no {name}$"
        with pytest.raises(AttributeError, match=message):
            getattr(state, name)
        if not _core.settings[name]["fixed"]:
            with pytest.raises(AttributeError, match=message):
                setattr(state, name, 0.5)


@pytest.mark.parametrize(
    ("rule", "name", "way_out"),
    [
        ("adam", "betas", "use beta1 and beta2"),
        ("adam", "beta", "use beta1"),
        ("adam", "alpha", "use lr"),
        ("adam", "learning_rate", "use lr"),
        ("adam", "epsilon", "use eps"),
        ("adam", "amsgrd", "use amsgrad"),
        ("momentum", "beta", "use momentum"),
        ("momentum", "betas", "it has lr, momentum, dampening, "),
        ("momentum", "nesterovs_momentum", "use nesterov"),
        ("rmsprop", "alpha", "use lr or rho"),
        ("rmsprop", "gamma", "use momentum or rho"),
        ("lion", "b1", "use beta1"),
        ("signum", "beta1", "use momentum"),
        ("qhm", "zzz", "it has lr, momentum, nu, "),
    ],
)
def test_an_unknown_keyword_is_named_with_the_right_one(rule: str, name: str, way_out: str) -> None:
    made_by = RULES[rule][0]["made_by"]
    with pytest.raises(TypeError, match=rf"^{made_by}\(\) must not have the keyword {name}; {way_out}"):
        make(fm, np.ones(2), rule=rule, lr=0.1, **{name: 0.5})


def test_what_others_say_is_ours_for_some_function() -> None:
    functions = [getattr(place, name) for place in (fm, fm.tuning) for name in place.__all__]
    signatures = [
        inspect.signature(item)
        for item in functions
        if inspect.isbuiltin(item) or inspect.isfunction(item) or item is fm.Checkpoints
    ]
    known = {name for signature in signatures for name in signature.parameters}
    for foreign in (_keywords.FOREIGN, _keywords.PAIRS):
        assert {ours for names in foreign.values() for ours in names} <= known


@pytest.mark.parametrize("rule", OTHERS)
def test_states_of_another_rule_are_refused(rule: str) -> None:
    w = np.ones(2)
    state, other = fm.init(w, lr=0.1), make(fm, w, rule=rule, lr=0.1)
    with pytest.raises(
        ValueError, match=rf"^state_dict\['rule'\] must be 'momentum', as in init\(\), not '{rule}'$"
    ):
        state.load_state_dict(other.state_dict())
    with pytest.raises(
        ValueError, match=rf"^state_dict\['rule'\] must be '{rule}', as in .*, not 'momentum'$"
    ):
        other.load_state_dict(state.state_dict())
    with pytest.raises(
        ValueError, match=r"^state must be of the rule momentum to have another form, not |^form must be"
    ):
        other.to_form("ema")
    with pytest.raises(ValueError, match=rf"^rule must be 'momentum' to be converted, not '{rule}'$"):
        theory.convert("ema", lr=0.1, rule=rule)
    with pytest.raises(ValueError, match=rf"^state must be of the rule momentum to be tuned, not {rule}; "):
        fm.tuning.AutoTuner(other)
    with pytest.raises(
        ValueError, match=rf"^state must be of the rule momentum to be described, not {rule}; "
    ):
        theory.describe(other, curvature=(1, 2))


def known(case: dict[str, Any]) -> bool:
    return case["rule"] in RULES and case["hyperparameters"].keys() <= keywords(case["rule"]).keys()


@pytest.mark.parametrize("case", list(filter(known, GOLDEN)), ids=lambda case: case["id"])
@pytest.mark.parametrize("package", [fm, reference], ids=["kernels", "reference"])
def test_golden(case: dict[str, Any], package: Any) -> None:
    """Exact, by hexadecimal numbers that were computed elsewhere from the formulas."""

    def numbers(texts: list[str]) -> Any:
        return np.array([float.fromhex(x) for x in texts], case["dtype"])

    p = numbers(case["params"])
    state = make(package, p, rule=case["rule"], **case["hyperparameters"])
    for grads, expected in zip(case["grads"], case["expected_params_after_each_step"], strict=True):
        package.step(p, numbers(grads), state)
        assert_bits(p, numbers(expected))
    expected_state = case.get("expected_state_at_the_end", {})
    if case["rule"] == "rmsprop" and not state.momentum:
        expected_state.pop("velocity", None)  # it is not kept then
    for name, expected in expected_state.items():
        assert_bits(getattr(state, name), numbers(expected))


# ---- quasi-hyperbolic momentum ----


@pytest.mark.parametrize(("nu", "form"), [(1.0, {}), (0.9, {"nesterov": True})])
def test_qhm_has_ema_in_it(nu: float, form: dict[str, Any], rng: np.random.Generator) -> None:
    p = rng.standard_normal(50)
    q = p.copy()
    ours, theirs = (
        fm.qhm(p, lr=0.1, momentum=0.9, nu=nu),
        fm.init(q, lr=0.1, momentum=0.9, form="ema", **form),
    )
    for _ in range(20):
        grad = rng.standard_normal(50)
        fm.step(p, grad, ours)
        fm.step(q, grad, theirs)
        np.testing.assert_allclose(p, q, rtol=1e-13, atol=1e-14)


def test_qhm_without_its_velocity_is_gradient_descent(rng: np.random.Generator) -> None:
    p, grad = rng.standard_normal((2, 50))
    expected = p - 0.1 * grad
    fm.step(p, grad, fm.qhm(p, lr=0.1, nu=0.0))
    np.testing.assert_allclose(p, expected, rtol=1e-15, atol=1e-16)


def test_qhm_has_no_look_ahead() -> None:
    w = np.ones(2)
    with pytest.raises(ValueError, match="^state must have a look-ahead in lookahead"):
        fm.lookahead(w, fm.qhm(w, lr=0.1))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"nu": 1.5}, "nu must be in [0, 1], not 1.5"),
        ({"nu": -0.1}, "nu must be in [0, 1], not -0.1"),
        ({"nu": float("nan")}, "nu must be in [0, 1], not nan"),
        ({"nu": "0.7"}, "nu must be a real number, not str"),
        ({"nu": [0.5]}, "nu must be a number: there is one array here, as in params, not list"),
        ({"nu": 1e-60}, "nu must stay above 0 when rounded to float32, the dtype of params, not be 1e-60; use a float64 array or another value"),
        ({"momentum": 1.0}, "momentum must be in [0, 1), not 1.0"),
    ],
    ids=str,
)  # fmt: skip
def test_qhm_refuses(numbers: dict[str, Any], message: str) -> None:
    w = np.ones(2, np.float32)
    with pytest.raises((TypeError, ValueError)) as caught:
        fm.qhm(w, **{"lr": 0.1, **numbers})
    assert str(caught.value) == message
    state = fm.qhm(w, lr=0.1)
    [(name, value)] = numbers.items()
    with pytest.raises((TypeError, ValueError)) as caught:
        setattr(state, name, value)
    assert str(caught.value) == message
    assert getattr(state, name) == keywords("qhm")[name]


@pytest.mark.parametrize("nu", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_theory_of_qhm_is_that_of_step(nu: float, momentum: float) -> None:
    options: dict[str, Any] = {"momentum": momentum, "nu": nu}
    limit = theory.stability_limit(2.0, rule="qhm", **options)
    assert theory.rate(2.0, rule="qhm", lr=0.99 * limit, **options) < 1
    assert theory.rate(2.0, rule="qhm", lr=1.01 * limit, **options) > 1
    lr = 0.3 * limit
    w = np.array([5.0])
    state = fm.qhm(w, lr=lr, **options)
    path = [5.0]
    for _ in range(30):
        fm.step(w, 2 * w, state)
        path.append(float(w[0]))
    found, _ = theory.trajectory(2.0, np.arange(31), start=5.0, rule="qhm", lr=lr, **options)
    np.testing.assert_allclose(found, path, rtol=1e-9, atol=1e-12)


# ---- what an attack found ----


def test_momentum_decay_set_in_the_middle_knows_the_steps_before() -> None:
    w = np.zeros(1)
    state = fm.adam(w, lr=1e-3, nesterov=True)
    for _ in range(1000):
        fm.step(w, np.ones(1), state)
    state.momentum_decay = 0.004
    before = float(w[0])
    fm.step(w, np.ones(1), state)
    assert before - float(w[0]) == pytest.approx(1e-3, rel=0.01)


def test_nesterov_without_beta1_has_no_effect_and_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^beta1 must be above 0 where nesterov is True, not 0\.0$"):
        fm.adam(np.ones(1), lr=0.1, nesterov=True, beta1=0.0)


def test_a_negative_second_moment_is_refused() -> None:
    w = np.ones(2)
    state = fm.adam(w, lr=0.1)
    fm.step(w, np.ones(2), state)
    saved = state.state_dict()
    saved["second_moment"][""][1] = -1
    before = snapshot(state)
    message = r"^state_dict\['second_moment'\]\[''\] must be >= 0 in each element, not hold others$"
    with pytest.raises(ValueError, match=message):
        state.load_state_dict(saved)
    assert snapshot(state) == before

"""The adapter of PyTorch against the optimizers of torch.optim, and tensors stepped where they lie."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from helpers import assert_bits, edit, least_squares, numerical_gradient, random_like, run_python

torch = pytest.importorskip("torch")

from fast_momentum.adapters import pytorch

SHAPES: list[tuple[int, ...]] = [(64, 33), (33,), (7, 3, 5), ()]
# PyTorch computes x + a*y with one rounding and we with two, which agree where a is a power of two.
EXACT: list[dict[str, Any]] = [
    {"lr": 0.0625, "momentum": 0.9},
    {"lr": 0.0625, "momentum": 0.9, "dampening": 0.5},
    {"lr": 0.0625, "momentum": 0.5, "nesterov": True},
    {"lr": 0.0625, "momentum": 0.9, "weight_decay": 0.0625, "maximize": True},
    {"lr": 0.0625, "momentum": 0},
]
ROUNDED: list[dict[str, Any]] = [
    {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True},
]
TAKEN = "torch.float16, torch.float32, torch.float64, torch.complex64 or torch.complex128"
SINGLE = {"foreach": False, "fused": False}


def new_tensors(dtype: Any, rng: np.random.Generator) -> list[Any]:
    return [torch.tensor(random_like(shape, dtype, rng), requires_grad=True) for shape in SHAPES]


def both_steps(
    optimizer: Any, tensors: list[Any], params: Any, state: fm.State | None, rng: np.random.Generator,
    steps: int = 10, without: int | None = None,
) -> None:  # fmt: skip
    """Steps of both with the same gradients; `params` in the order of `tensors`, but for those `without` one."""
    for _ in range(steps):
        gradients = [random_like(p.shape, p.detach().numpy().dtype, rng) for p in tensors]
        for k, (tensor, gradient) in enumerate(zip(tensors, gradients, strict=True)):
            tensor.grad = None if k == without else torch.tensor(gradient)
        optimizer.step()
        if state is not None:
            grads = [None if k == without else g for k, g in enumerate(gradients)]
            fm.step(
                params, dict(zip(params, grads, strict=True)) if isinstance(params, dict) else grads, state
            )


def assert_agree(params: Any, tensors: list[Any], tolerance: float | None) -> None:
    for ours, theirs in zip(params.values() if isinstance(params, dict) else params, tensors, strict=True):
        if tolerance is None:
            assert_bits(ours, theirs.detach().numpy())
        else:
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def copies(tensors: list[Any]) -> list[Any]:
    return [np.array(array) for array in pytorch.arrays(tensors)]


@pytest.mark.parametrize("options", [*EXACT, *ROUNDED], ids=str)
def test_a_run_moves_there_and_back(options: dict[str, Any], dtype: Any, rng: np.random.Generator) -> None:
    tolerance = None if options in EXACT else 100 * float(np.finfo(dtype).eps)
    tensors = new_tensors(dtype, rng)
    optimizer = torch.optim.SGD(tensors, **options, **SINGLE)
    both_steps(optimizer, tensors, None, None, rng, steps=5, without=1)

    params = copies(tensors)
    state = pytorch.import_state(params, optimizer.state_dict(), step_count=5)
    assert state.step_count == 5
    steps = state.state_dict()["steps"]
    assert {path: n > 0 for path, n in steps.items()} == {
        f"[{k}]": k != 1 and options["momentum"] != 0 for k in range(4)
    }
    both_steps(optimizer, tensors, params, state, rng)
    assert_agree(params, tensors, tolerance)

    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    resumed = torch.optim.SGD(tensors, lr=1.0, **SINGLE)
    resumed.load_state_dict(pytorch.export_state(state, resumed))
    kept = {name: resumed.param_groups[0][name] for name in options}
    assert kept == options
    both_steps(resumed, tensors, params, state, rng)
    assert_agree(params, tensors, tolerance)


@pytest.mark.parametrize("way", ["foreach", "fused"])
def test_fused_and_foreach_steps_go_on(way: str, dtype: Any, rng: np.random.Generator) -> None:
    """To rounding, as they fuse products and sums. A fused step needs buffers in the layout of the parameters."""
    last = torch.tensor(random_like((4, 3, 2, 5), dtype, rng)).to(memory_format=torch.channels_last)
    transposed = torch.tensor(random_like((6, 4), dtype, rng)).T
    tensors = [last.requires_grad_(), transposed.requires_grad_()]
    params = [np.array(p, order="C") for p in pytorch.arrays(tensors)]
    state = fm.init(params, lr=0.05, momentum=0.9)
    fm.step(params, [random_like(p.shape, dtype, rng) for p in params], state)
    optimizer = torch.optim.SGD(tensors, **{way: True})
    optimizer.load_state_dict(pytorch.export_state(state, optimizer))
    for view, p in zip(pytorch.arrays(tensors), params, strict=True):
        view[...] = p
    for _ in range(10):
        gradients = [random_like(tuple(p.shape), dtype, rng) for p in tensors]
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = torch.empty_like(tensor.detach()).copy_(torch.tensor(gradient))
        optimizer.step()
        fm.step(params, gradients, state)
    assert_agree(params, tensors, 100 * float(np.finfo(dtype).eps))


def test_every_bit_agrees_where_pytorch_does_not_fuse() -> None:
    run_python(
        """
        import numpy as np, torch
        import fast_momentum as fm
        from fast_momentum.adapters import pytorch
        assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
        rng = np.random.default_rng(0)
        for dtype in (np.float32, np.float64):
            for options in ({"dampening": 0.3}, {"nesterov": True}, {"weight_decay": 0.01, "maximize": True}):
                tensor = torch.tensor(rng.normal(size=1000).astype(dtype), requires_grad=True)
                sgd = torch.optim.SGD([tensor], lr=0.05, momentum=0.9, foreach=False, fused=False, **options)
                params = state = None
                for t in range(15):
                    if t == 5:
                        params = [np.array(tensor.detach())]
                        state = pytorch.import_state(params, sgd.state_dict())
                    gradient = rng.normal(size=1000).astype(dtype)
                    tensor.grad = torch.tensor(gradient)
                    sgd.step()
                    if state is not None:
                        fm.step(params, [gradient], state)
                assert params[0].tobytes() == tensor.detach().numpy().tobytes()
        """,
        ATEN_CPU_CAPABILITY="default",
    )


# ---- the other optimizers ----

# PyTorch forms a moment as m + (1-beta1)*(d-m), fuses products and sums, and takes a decoupled decay off first.
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"betas": (0.75, 0.99), "eps": 1e-3, "amsgrad": True, "weight_decay": 0.01, "maximize": True}),
    ("Adam", {"weight_decay": 0.01, "decoupled_weight_decay": True}),
    ("AdamW", {}),
    ("AdamW", {"amsgrad": True, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"weight_decay": 0.01, "momentum_decay": 0.5, "maximize": True}),
    ("NAdam", {"weight_decay": 0.01, "decoupled_weight_decay": True}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True, "alpha": 0.9, "eps": 1e-3}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.01, "maximize": True}),
]  # fmt: skip


def tolerance_of(name: str, dtype: Any) -> float:
    """NAdam of PyTorch keeps its product in float32, until it is loaded from a checkpoint."""
    return 100 * float(np.finfo(np.float32 if name == "NAdam" else dtype).eps)


def new_state(name: str, params: Any, optimizer: Any) -> fm.State:
    """A State like that of an optimizer which has made no step."""
    state = pytorch.import_state(params, optimizer.state_dict())
    assert (state.step_count, {*state.state_dict()["steps"].values()}) == (0, {0})
    return state


@pytest.mark.parametrize(("name", "options"), OTHERS, ids=str)
def test_a_run_of_another_rule_moves_there_and_back(
    name: str, options: dict[str, Any], dtype: Any, rng: np.random.Generator
) -> None:
    tolerance = tolerance_of(name, dtype)
    cls = getattr(torch.optim, name)
    tensors = new_tensors(dtype, rng)
    optimizer = cls(tensors, lr=0.05, **options)
    both_steps(optimizer, tensors, None, None, rng, steps=2, without=0)
    both_steps(optimizer, tensors, None, None, rng, steps=3, without=1)

    params = copies(tensors)
    state = pytorch.import_state(params, optimizer.state_dict())
    assert state.step_count == 5
    assert list(state.state_dict()["steps"].values()) == [3, 2, 5, 5]
    both_steps(optimizer, tensors, params, state, rng)
    assert_agree(params, tensors, tolerance)

    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    resumed = cls(tensors, lr=1.0)
    resumed.load_state_dict(pytorch.export_state(state, resumed))
    assert resumed.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    assert [float(resumed.state[t]["step"]) for t in tensors] == [13, 12, 15, 15]
    for theirs, ours in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        assert theirs.keys() <= ours.keys()
    both_steps(resumed, tensors, params, state, rng)
    assert_agree(params, tensors, tolerance)


FUSED = [("foreach", *other) for other in OTHERS]
FUSED += [("fused", *other) for other in OTHERS if other[0] in ("Adam", "AdamW")]  # the others have none


@pytest.mark.parametrize(("way", "name", "options"), FUSED, ids=str)
def test_fused_and_foreach_steps_of_another_rule_go_on(
    way: str, name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    cls = getattr(torch.optim, name)
    tensors = [torch.tensor(random_like((6, 4), np.float32, rng)).T.requires_grad_()]
    params = [np.array(p, order="C") for p in pytorch.arrays(tensors)]
    state = new_state(name, params, cls(tensors, lr=0.05, **options))
    fm.step(params, [random_like(p.shape, np.float32, rng) for p in params], state)
    optimizer = cls(tensors, **{way: True})
    optimizer.load_state_dict(pytorch.export_state(state, optimizer))
    pytorch.arrays(tensors)[0][...] = params[0]
    for _ in range(10):
        gradient = random_like((4, 6), np.float32, rng)
        tensors[0].grad = torch.empty_like(tensors[0].detach()).copy_(torch.tensor(gradient))
        optimizer.step()
        fm.step(params, [gradient], state)
    assert_agree(params, tensors, tolerance_of(name, np.float32))


def test_a_product_of_nadam_is_carried_over() -> None:
    """In float64 where the parameters have it."""
    params = [np.zeros(2), np.zeros(3)]
    state = fm.adam(params, lr=0.5, nesterov=True, momentum_decay=0.004)
    fm.step(params, [np.ones(2), None], state)
    fm.step(params, [np.ones(2), np.ones(3)], state)
    products = list(state.state_dict()["momentum_products"].values())
    tensors = [torch.zeros(2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    optimizer = torch.optim.NAdam(tensors)
    optimizer.load_state_dict(pytorch.export_state(state, optimizer))
    assert [float(optimizer.state[t]["mu_product"]) for t in tensors] == products
    imported = pytorch.import_state(params, optimizer.state_dict())
    assert list(imported.state_dict()["momentum_products"].values()) == products
    assert products[0] < products[1] < 0.5


def test_groups_of_another_rule(rng: np.random.Generator) -> None:
    model = layer_norm()
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [("bias", parameters["bias"])], "betas": (0.5, 0.75), "eps": 1e-3},
        {"params": [("weight", parameters["weight"])], "weight_decay": 0.125, "lr": 0.25},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.5, weight_decay=0.0)
    tensors = list(model.parameters())
    both_steps(optimizer, tensors, None, None, rng, steps=3)
    params = {name: np.array(p) for name, p in pytorch.arrays(model).items()}
    state = pytorch.import_state(params, optimizer.state_dict())
    assert state.beta1 == {"weight": 0.9, "bias": 0.5}
    assert state.beta2 == {"weight": 0.999, "bias": 0.75}
    assert state.eps == {"weight": 1e-8, "bias": 1e-3}
    assert (state.lr, state.weight_decay) == ({"weight": 0.25, "bias": 0.5}, {"weight": 0.125, "bias": 0.0})
    both_steps(optimizer, tensors, params, state, rng)
    assert_agree(params, tensors, 1e-5)
    exported = pytorch.export_state(state, optimizer)["param_groups"]
    assert exported == optimizer.state_dict()["param_groups"]


def test_a_maximum_that_is_no_longer_taken_is_left() -> None:
    found = changed(of_another("Adam", amsgrad=True), amsgrad=False)
    state = pytorch.import_state([np.zeros(2, np.float32), np.zeros(3, np.float32)], found)
    assert state.second_moment_maximum is None


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("SGD", lambda p: fm.adam(p, lr=0.5), "state must be of the rule momentum, as torch.optim.SGD is, not adam; init() makes such a state"),
        ("Adam", lambda p: fm.rmsprop(p, lr=0.5), "state must be of the rule adam, as torch.optim.Adam is, not rmsprop; adam() makes such a state"),
        ("Adam", lambda p: fm.adam(p, lr=0.5, form="folded"), "state.form must be 'corrected', as in torch.optim.Adam, not 'folded'; make the state with form='corrected'"),
        ("Adam", lambda p: fm.adam(p, lr=0.5, nesterov=True), "state.nesterov must be False, as in torch.optim.Adam, not True"),
        ("AdamW", lambda p: fm.adam(p, lr=0.5, weight_decay=0.1), "state.decoupled_weight_decay must be True, as in torch.optim.AdamW, not False"),
        ("NAdam", lambda p: fm.adam(p, lr=0.5), "state.nesterov must be True, as in torch.optim.NAdam, not False"),
        ("NAdam", lambda p: fm.adam(p, lr=0.5, nesterov=True), "state.momentum_decay must be a number for param_groups[0], as in torch.optim.NAdam, not None"),
        ("NAdam", lambda p: fm.adam(p, lr=0.5, nesterov=True, amsgrad=True), "state.amsgrad must be False, as in torch.optim.NAdam, not True"),
        ("RMSprop", lambda p: fm.rmsprop(p, lr=0.5, form="lr_inside"), "state.form must be 'lr_outside', as in torch.optim.RMSprop, not 'lr_inside'"),
        ("RMSprop", lambda p: fm.rmsprop(p, lr=0.5, weight_decay=0.1, decoupled_weight_decay=True), "state.decoupled_weight_decay must be False, as in torch.optim.RMSprop, not True"),
        ("Adam", lambda p: fm.adam(p, lr=0.5, beta1=[0.5, 0.75]), "state.beta1 must be one number for param_groups[0], not [0.5, 0.75]; make a group for each"),
    ],
)  # fmt: skip
def test_refused_exports_of_another_rule(name: str, make: Any, message: str) -> None:
    state = make([np.zeros(2, np.float32), np.zeros(3, np.float32)])
    optimizer = getattr(torch.optim, name)([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(ValueError, match="must") as caught:
        pytorch.export_state(state, optimizer)
    assert message in str(caught.value)


# ---- groups and names ----


def layer_norm() -> Any:
    return torch.nn.LayerNorm(4)  # weight and bias have one shape


def grouped(model: Any, named: bool) -> Any:
    """The numbers of PyTorch are not the order of named_parameters()."""
    parameters = dict(model.named_parameters())
    groups = [
        {"params": ["bias"], "lr": 0.25},
        {"params": ["weight"], "weight_decay": 0.125, "momentum": 0.75, "dampening": 0.5},
    ]
    for group in groups:
        group["params"] = [
            (name, parameters[name]) if named else parameters[name] for name in group["params"]
        ]
    return torch.optim.SGD(groups, lr=0.5, momentum=0.5, **SINGLE)


@pytest.mark.parametrize("named", [True, False])
def test_groups_by_name(named: bool, rng: np.random.Generator) -> None:
    model = layer_norm()
    tensors = list(model.parameters())
    optimizer = grouped(model, named)
    both_steps(optimizer, tensors, None, None, rng, steps=3)
    params = {name: np.array(p) for name, p in pytorch.arrays(model).items()}
    names = None if named else ["bias", "weight"]
    state = pytorch.import_state(params, optimizer.state_dict(), names=names)
    assert state.lr == {"weight": 0.5, "bias": 0.25}
    assert state.weight_decay == {"weight": 0.125, "bias": 0.0}
    both_steps(optimizer, tensors, params, state, rng)
    assert_agree(params, tensors, None)

    resumed = grouped(model, named)
    before = resumed.state_dict()
    resumed.load_state_dict(pytorch.export_state(state, resumed, names=names))
    assert resumed.state_dict()["param_groups"] == before["param_groups"]
    state.lr = {"weight": 0.125, "bias": 0.5}
    resumed.load_state_dict(pytorch.export_state(state, resumed, names=names))
    assert [group["lr"] for group in resumed.param_groups] == [0.5, 0.125]
    both_steps(resumed, tensors, params, state, rng)
    assert_agree(params, tensors, None)


def test_nested_params_are_named_as_modules_are(rng: np.random.Generator) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.5, momentum=0.5)
    both_steps(optimizer, list(model.parameters()), None, None, rng, steps=1)
    views = pytorch.arrays(model)
    params = [{"bias": views[f"{k}.bias"], "weight": views[f"{k}.weight"]} for k in range(2)]
    state = pytorch.import_state(params, optimizer.state_dict())
    for name, parameter in model.named_parameters():
        k, kind = name.split(".")
        assert_bits(state.velocity[int(k)][kind], optimizer.state[parameter]["momentum_buffer"].numpy())


def test_a_scheduler_is_no_obstacle() -> None:
    tensors = [torch.zeros(2)]
    optimizer = torch.optim.SGD(tensors, lr=torch.tensor(0.5), momentum=0.5, weight_decay=0.25)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, 10)
    state = pytorch.import_state(copies(tensors), optimizer.state_dict())
    group = optimizer.param_groups[0]
    assert (state.lr, state.momentum) == (float(group["lr"]), group["momentum"])
    exported = pytorch.export_state(state, optimizer)["param_groups"][0]
    assert exported["max_lr"] == group["max_lr"]
    assert exported["lr"] == float(group["lr"])


def test_what_is_exported_is_a_copy() -> None:
    tensors = [torch.zeros(2)]
    params = copies(tensors)
    optimizer = torch.optim.SGD(tensors)
    state = fm.init(params, lr=0.5)
    fm.step(params, [np.ones(2, np.float32)], state)
    exported = pytorch.export_state(state, optimizer)
    buffer = exported["state"][0]["momentum_buffer"]
    buffer.zero_()
    assert state.velocity[0].tolist() == [1, 1]
    assert optimizer.state_dict()["state"] == {}, "the receiver is not changed"
    imported = pytorch.import_state(params, exported)
    buffer.fill_(7)
    assert imported.velocity[0].tolist() == [0, 0]


# ---- refusals ----


def of_another(name: str, **options: Any) -> dict[str, Any]:
    """The state of another optimizer that has made a step."""
    tensors = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    optimizer = getattr(torch.optim, name)(tensors, **options)
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
    found: dict[str, Any] = optimizer.state_dict()
    return found


def changed(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """With another group."""
    found["param_groups"][0].update(changes)
    return found


def saved(**changes: Any) -> dict[str, Any]:
    """The state of an SGD, with changes of its group."""
    return changed(of_another("SGD", lr=0.5, momentum=0.5), **changes)


def with_buffer(buffer: Any) -> dict[str, Any]:
    found = saved()
    found["state"][1] = {"momentum_buffer": buffer}
    return found


def two_groups(**second: Any) -> dict[str, Any]:
    tensors = [torch.zeros(2), torch.zeros(3)]
    groups = [{"params": tensors[:1]}, {"params": tensors[1:], **second}]
    return torch.optim.SGD(groups, lr=0.5, momentum=0.5).state_dict()


def without(name: str) -> dict[str, Any]:
    found = saved()
    del found["param_groups"][0][name]
    return found


def with_keys(key: Any) -> dict[str, Any]:
    found = saved()
    return {**found, "state": {key(number): kept for number, kept in found["state"].items()}}


REFUSED_IMPORTS = {
    "nesterov differs": (lambda: two_groups(nesterov=True), ValueError,
        "state_dict must have one nesterov for all of its param_groups, not True and False; use two states"),
    "maximize differs": (lambda: two_groups(maximize=True), ValueError,
        "state_dict must have one maximize for all of its param_groups, not True and False; use two states"),
    "radam": (lambda: of_another("RAdam"), ValueError, "state_dict['param_groups'][0] must have amsgrad, as a torch.optim.Adam has, not lr, betas"),
    "adamax": (lambda: of_another("Adamax"), ValueError, "must have decoupled_weight_decay, amsgrad, as a torch.optim.Adam has, not"),
    "adagrad": (lambda: of_another("Adagrad"), ValueError, "must have betas, decoupled_weight_decay, amsgrad, as a torch.optim.Adam has, not lr, lr_decay, eps"),
    "amsgrad differs": (lambda: torch.optim.Adam([{"params": [torch.zeros(2)]}, {"params": [torch.zeros(3)], "amsgrad": True}]).state_dict(),
        ValueError, "state_dict must have one amsgrad for all of its param_groups, not True and False; use two states"),
    "momentum_decay differs": (lambda: torch.optim.NAdam([{"params": [torch.zeros(2)]}, {"params": [torch.zeros(3)], "momentum_decay": 0.5}]).state_dict(),
        ValueError, "state_dict must have one momentum_decay for all of its param_groups, not 0.5 and 0.004; use two states"),
    "amsgrad switched on": (lambda: changed(of_another("Adam"), amsgrad=True), ValueError,
        "state_dict['state'][0] must have step, exp_avg, exp_avg_sq, max_exp_avg_sq, by its group, not step, exp_avg, exp_avg_sq"),
    "momentum switched on": (lambda: changed(of_another("RMSprop"), momentum=0.5), ValueError,
        "state_dict['state'][0] must have step, square_avg, momentum_buffer, by its group, not step, square_avg"),
    "alpha 1": (lambda: of_another("RMSprop", alpha=1.0), ValueError, "rho must be in [0, 1), not 1.0"),
    "moment in bfloat16": (lambda: {**of_another("Adam"), "state": {0: {"step": 1, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2).bfloat16()}}}, TypeError,
        f"state_dict['state'][0]['exp_avg_sq'] must have dtype {TAKEN}, not torch.bfloat16"),
    "moved": (lambda: without("momentum"), ValueError, "must have momentum, as a torch.optim.SGD has"),
    "differentiable": (lambda: saved(differentiable=True), ValueError,
        "state_dict['param_groups'][0] must not be differentiable, which a step here is not"),
    "lr_decay": (lambda: saved(lr_decay=0.5), ValueError,
        "state_dict['param_groups'][0] must have no lr_decay, which torch.optim.SGD of PyTorch 2.13.0 does not read"),
    "another buffer": (lambda: {**saved(), "state": {0: {"velocity": torch.zeros(2)}}}, ValueError,
        "state_dict['state'][0] must have momentum_buffer, by its group, not velocity"),
    "no dict": (lambda: [1], ValueError, "state_dict must be what state_dict() of an optimizer of PyTorch returns, not list"),
    "parameters": (lambda: {"weight": torch.zeros(2)}, ValueError, "state_dict must be what state_dict() of an optimizer of PyTorch returns"),
    "shape": (lambda: with_buffer(torch.zeros(4)), ValueError,
        "the momentum_buffer must have the shape of params[1], (3,), not (4,)"),
    "dtype": (lambda: with_buffer(torch.zeros(3, dtype=torch.float64)), TypeError,
        "the momentum_buffer must have dtype float32, as params[1] has, not float64"),
    "bfloat16": (lambda: with_buffer(torch.zeros(3, dtype=torch.bfloat16)), TypeError,
        f"state_dict['state'][1]['momentum_buffer'] must have dtype {TAKEN}, not torch.bfloat16"),
    "keys as JSON leaves them": (lambda: with_keys(str), ValueError,
        "state_dict['state'] must have no keys but the numbers in its param_groups, not '0'; JSON made strings of numbers: "
        "{int(key): kept for key, kept in state.items()}"),
    "keys of others": (lambda: with_keys(lambda number: number + 1), ValueError,
        "state_dict['state'] must have no keys but the numbers in its param_groups, not 2"),
    "one key too many": (lambda: {**saved(), "state": {**saved()["state"], None: {}}}, ValueError,
        "state_dict['state'] must have no keys but the numbers in its param_groups, not None"),
    "no keys": (lambda: {**saved(), "state": [{"momentum_buffer": torch.ones(2)}]}, ValueError,
        "state_dict['state'] must be a dict with a dict for each parameter, not list of others"),
    "buffers alone": (lambda: {**saved(), "state": {0: torch.ones(2)}}, ValueError,
        "state_dict['state'] must be a dict with a dict for each parameter, not dict of others"),
    "a parameter twice": (lambda: saved(params=[0, 0]), ValueError,
        "state_dict['param_groups'] must have each parameter once, not one of them twice"),
    "something besides": (lambda: {**saved(), "scaler": {}}, ValueError,
        "state_dict must have state and param_groups alone, not 'scaler'; delete it"),
    "momentum 1": (lambda: saved(momentum=1.0), ValueError, "momentum must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_IMPORTS)
def test_refused_imports(case: str) -> None:
    make, error, message = REFUSED_IMPORTS[case]
    params = [np.zeros(2, np.float32), np.zeros(3, np.float32)]
    assert pytorch.import_state(params, saved()).velocity[1].tolist() == [1, 1, 1]
    with pytest.raises(error) as caught:
        pytorch.import_state(params, make())
    assert message in str(caught.value)


def test_refused_pairings() -> None:
    params = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    for arguments, message in [
        (
            ([params["a"]], saved()),
            "params must have 2 arrays, one for each parameter of the optimizer, not 1",
        ),
        (
            (params, two_groups()),
            "names must be given where params has a dict and the optimizer several groups",
        ),
    ]:
        with pytest.raises(ValueError, match="must") as caught:
            pytorch.import_state(*arguments)
        assert message in str(caught.value)
    for names in (["a", "c"], ["a", "a"], ["a"]):
        with pytest.raises(ValueError, match="names must be those of the arrays of params"):
            pytorch.import_state(params, saved(), names=names)


REFUSED_EXPORTS = {
    "form": ({"form": "lr_inside"}, "state.form must be 'lr_outside', as in torch.optim.SGD, not 'lr_inside'; call state.to_form('lr_outside')"),
    "differs": ({"lr": [0.5, 0.25]}, "state.lr must be one number for param_groups[0], not [0.25, 0.5]; make a group for each"),
    "decoupled": ({"weight_decay": 0.1, "decoupled_weight_decay": True}, "state.decoupled_weight_decay must be False, as in torch.optim.SGD, not True; make the state with decoupled_weight_decay=False"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_EXPORTS)
def test_refused_exports(case: str) -> None:
    options, message = REFUSED_EXPORTS[case]
    params = [np.zeros(2, np.float32), np.zeros(3, np.float32)]
    optimizer = torch.optim.SGD([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(ValueError, match="must") as caught:
        pytorch.export_state(fm.init(params, **{"lr": 0.5, **options}), optimizer)
    assert message in str(caught.value)


def test_more_refused_exports() -> None:
    params = [np.zeros(2, np.float32), np.zeros(3, np.float32)]
    state = fm.init(params, lr=0.5, dampening=0.5)
    with pytest.raises(ValueError, match="parameter 1 of optimizer, \\(4,\\), not \\(3,\\)"):
        pytorch.export_state(state, torch.optim.SGD([torch.zeros(2), torch.zeros(4)]))
    optimizer = torch.optim.SGD([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(
        TypeError, match="optimizer must be one of torch.optim.SGD, torch.optim.Adam, .*, not dict"
    ):
        pytorch.export_state(state, optimizer.state_dict())
    pytorch.export_state(state, optimizer)
    state.momentum = 0.0
    with pytest.raises(ValueError, match="dampening must be 0 for param_groups\\[0\\], where momentum is 0"):
        pytorch.export_state(state, optimizer)


def test_dampening_without_momentum_is_dropped_as_pytorch_does() -> None:
    state = pytorch.import_state(
        [np.zeros(2, np.float32), np.zeros(3, np.float32)], saved(momentum=0, dampening=0.5)
    )
    assert (state.momentum, state.dampening) == (0, 0)


# ---- complex tensors ----


def test_the_gradient_of_a_complex_tensor_is_the_one_that_a_step_takes(rng: np.random.Generator) -> None:
    """df/dx + i df/dy, as docs/howto/images.md says."""
    matrix, data, solution = least_squares(rng)
    tensors = [torch.tensor(z) for z in (matrix, data)]
    z = torch.zeros(5, dtype=torch.complex128, requires_grad=True)
    params = pytorch.arrays(z)
    state = fm.init(params, lr=0.5 / np.linalg.norm(matrix, 2) ** 2, momentum=0.5)
    for step in range(1000):
        (tensors[0] @ z - tensors[1]).abs().square().sum().backward()
        if step == 1:
            expected = numerical_gradient(lambda z: np.sum(abs(matrix @ z - data) ** 2), params)
            np.testing.assert_allclose(pytorch.grads(z), expected, rtol=1e-5, atol=1e-6)
        fm.step(params, pytorch.grads(z), state)
        z.grad = None
    np.testing.assert_allclose(z.detach().numpy(), solution, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128], ids=str)
@pytest.mark.parametrize(
    ("name", "options"), [*(("SGD", {**options, **SINGLE}) for options in ROUNDED), *OTHERS], ids=str
)
def test_a_run_of_complex_tensors_moves_there_and_back(
    name: str, options: dict[str, Any], dtype: Any, rng: np.random.Generator
) -> None:
    """Both see pairs of reals."""

    def random(shape: tuple[int, ...]) -> Any:
        parts = random_like((*shape, 2), dtype(0).real.dtype, rng)
        return parts.view(dtype).reshape(shape)

    def steps(optimizer: Any, state: fm.State | None = None) -> None:
        for _ in range(4):
            gradients = [random((4, 3)), random((5,))]
            for tensor, gradient in zip(tensors, gradients, strict=True):
                tensor.grad = torch.tensor(gradient)
            optimizer.step()
            if state is not None:
                fm.step(params, gradients, state)

    tolerance = tolerance_of(name, dtype)
    cls = getattr(torch.optim, name)
    tensors = [torch.tensor(random(shape), requires_grad=True) for shape in [(4, 3), (5,)]]
    optimizer = cls(tensors, **{"lr": 0.05, **options})
    steps(optimizer)
    params = copies(tensors)
    state = pytorch.import_state(params, optimizer.state_dict())
    steps(optimizer, state)
    assert_agree(params, tensors, tolerance)

    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    resumed = cls(tensors, lr=1.0)
    resumed.load_state_dict(pytorch.export_state(state, resumed))
    steps(resumed, state)
    assert_agree(params, tensors, tolerance)


# ---- tensors as arrays ----


def test_a_model_is_stepped_where_it_lies() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2))
    model = model.to(memory_format=torch.channels_last)
    model[2].bias.requires_grad_(False)
    twin = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2))
    twin.load_state_dict(model.state_dict())
    twin[2].bias.requires_grad_(False)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.0625, momentum=0.5, nesterov=True, **SINGLE)
    params = pytorch.arrays(model)
    assert not params["0.weight"].flags.c_contiguous
    state = fm.init(params, lr=0.0625, momentum=0.5, nesterov=True)
    for _ in range(3):
        for module in (model, twin):
            module.zero_grad()
            module(torch.ones(2, 3, 4, 4)).square().sum().backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            if p.grad is not None:  # those of another memory format are added up in another order
                p.grad.copy_(q.grad)
        fm.step(params, pytorch.grads(model), state)
        optimizer.step()
        assert_agree(params, list(twin.parameters()), None)
        assert_agree(params, list(model.parameters()), None)
    assert state.state_dict()["steps"]["['2.bias']"] == 0


@pytest.mark.parametrize(
    "view",
    [lambda t: t.T, lambda t: t[::2], lambda t: t[:, 1::3], lambda t: t.diagonal(), lambda t: t[2, 3]],
    ids=["transposed", "rows", "columns", "diagonal", "one element"],
)
def test_views_of_a_tensor(view: Any, dtype: Any, rng: np.random.Generator) -> None:
    base = torch.tensor(random_like((6, 8), dtype, rng))
    expected = base.clone()
    tensor = view(base)
    gradient = random_like(tuple(tensor.shape), dtype, rng)
    params = pytorch.arrays({"x": [tensor, None]})
    assert params["x"][1] is None
    assert params["x"][0].shape == tuple(tensor.shape)
    array = params["x"][0]
    fm.step(array, gradient, fm.init(array, lr=0.0625))
    view(expected).sub_(torch.tensor(gradient), alpha=0.0625)
    assert_bits(base.numpy(), expected.numpy())


def test_autograd_can_be_told() -> None:
    """As docs/howto/torch_and_jax.md says: without it, gradients are wrong without an error."""
    weight = torch.ones(3, requires_grad=True)
    params = pytorch.arrays([weight])
    state = fm.init(params, lr=1.0)
    loss = weight.square().sum()
    fm.step(params, [np.ones(3, np.float32)], state)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 0, 0], "the gradient was 2, at the ones of the forward pass"
    loss = weight.square().sum()
    fm.step(params, [np.ones(3, np.float32)], state)
    torch.autograd.graph.increment_version([weight])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tied_parameters_are_one_array() -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)])
    model[1].weight = model[0].weight
    assert list(pytorch.arrays(model)) == ["0.weight"]


def test_a_step_of_a_sparse_gradient_is_that_of_its_rows() -> None:
    """SparseAdam steps rows alone, too; what it does with them is rounded in another order."""
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Embedding(9, 4, sparse=True, dtype=torch.float64) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = torch.optim.SparseAdam(theirs.parameters(), lr=0.1)
    params = pytorch.arrays(ours)
    state = fm.adam(params, lr=0.1, form="folded")
    for tokens in ([1, 7, 1], [7, 3], [1, 1, 1, 8]):
        for embedding in (ours, theirs):
            embedding.zero_grad()
            embedding(torch.tensor(tokens)).square().sum().backward()
        grads = pytorch.grads(ours)
        assert isinstance(grads["weight"], fm.Rows)
        assert np.shares_memory(grads["weight"].values, ours.weight.grad._values().numpy())
        fm.step(params, grads, state)
        optimizer.step()
    np.testing.assert_allclose(params["weight"], theirs.weight.detach().numpy(), rtol=1e-9)


def test_refused_tensors() -> None:
    dense, torn = torch.zeros(2), torch.zeros(2, 2, requires_grad=True)
    torn.grad = torch.eye(2).to_sparse()
    for function, tensors, message in [
        (pytorch.arrays, {"a": [dense, torch.zeros(2, device="meta")]}, "tensors['a'][1] must be on the CPU, not meta; .cpu() makes a copy"),
        (pytorch.arrays, [torch.zeros(2, dtype=torch.bfloat16)], f"tensors[0] must have dtype {TAKEN}, not torch.bfloat16; .float() makes a copy"),
        (pytorch.arrays, torch.zeros(2, dtype=torch.int64), f"tensors must have dtype {TAKEN}, not torch.int64"),
        (pytorch.arrays, torch.zeros(2, dtype=torch.complex64).conj(), " Use tensor.resolve_conj().numpy() instead."),
        (pytorch.arrays, torch.zeros(2).to_sparse(), "tensors must be dense, not torch.sparse_coo; .to_dense() makes a copy"),
        (pytorch.grads, [torn], "tensors[0].grad must be dense, not torch.sparse_coo; .to_dense() makes a copy"),
        (pytorch.arrays, [np.zeros(2)], "tensors[0] must be a torch.Tensor, not numpy.ndarray"),
        (pytorch.grads, [np.zeros(2)], "tensors[0] must be a torch.Tensor, not numpy.ndarray"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match="must") as caught:
            function(tensors)
        assert str(caught.value).endswith(message)
    expanded = pytorch.arrays(torch.zeros(1).expand(3))
    with pytest.raises(ValueError, match="overlap"):
        fm.step(expanded, np.ones(3, np.float32), fm.init(expanded, lr=0.5))


# ---- the module ----


def test_examples() -> None:
    found = doctest.testmod(pytorch)
    assert found.attempted > 0
    assert found.failed == 0


def test_without_pytorch() -> None:
    printed = run_python(
        """
        import sys
        sys.modules["torch"] = None
        try:
            import fast_momentum.adapters.pytorch
        except ImportError as error:
            print(error)
        """
    )
    assert printed == "fast_momentum.adapters.pytorch must have torch; pip install torch\n"


def sgd_state() -> dict[str, Any]:
    """Of one parameter of three elements, after a step."""
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.5)
    weight.sum().backward()
    optimizer.step()
    return optimizer.state_dict()


GROUP = "state_dict['param_groups'][0]"
OF_OTHER_TYPES: list[tuple[list[Any], Any, str]] = [
    (["param_groups", 0, "lr"], "0.5", f"{GROUP}['lr'] must be a number, not str"),
    (["param_groups", 0, "lr"], True, f"{GROUP}['lr'] must be a number, not bool"),
    (["param_groups", 0, "lr"], torch.ones(2), f"{GROUP}['lr'] must be a number, not torch.Tensor"),
    (["param_groups", 0, "momentum"], None, f"{GROUP}['momentum'] must be a number, not NoneType"),
    (["param_groups", 0, "nesterov"], "False", f"{GROUP}['nesterov'] must be True or False, not str"),
    (["param_groups", 0, "maximize"], 0, f"{GROUP}['maximize'] must be True or False, not int"),
    (["param_groups", 0], "lr", f"{GROUP} must be a dict with a list of params, not str"),
    (["param_groups", 0, "params"], 0, f"{GROUP} must be a dict with a list of params, not dict"),
    (["state", 0, "momentum_buffer"], np.zeros(3, np.float32),
     "state_dict['state'][0]['momentum_buffer'] must be a torch.Tensor, not numpy.ndarray"),
    (["state", 0, "momentum_buffer"], [0.0, 0.0, 0.0],
     "state_dict['state'][0]['momentum_buffer'] must be a torch.Tensor, not list"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), OF_OTHER_TYPES, ids=str)
def test_what_has_another_type_is_refused(path: list[Any], value: Any, message: str) -> None:
    changed = edit(path, value)(sgd_state())
    with pytest.raises(TypeError) as info:
        pytorch.import_state([np.zeros(3, np.float32)], changed)
    assert str(info.value) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("betas", (0.9,), "['betas'] must be 2 numbers, not tuple"), ("betas", 0.9, "['betas'] must be 2 numbers, not float"),
     ("betas", (0.9, "1"), "['betas'][1] must be a number, not str"), ("amsgrad", None, "['amsgrad'] must be True or False, not NoneType")],
)  # fmt: skip
def test_what_has_another_type_is_refused_of_adam(name: str, value: Any, message: str) -> None:
    changed = edit(["param_groups", 0, name], value)(torch.optim.Adam([torch.zeros(3)]).state_dict())
    with pytest.raises(TypeError) as info:
        pytorch.import_state([np.zeros(3, np.float32)], changed)
    assert str(info.value) == GROUP + message


@pytest.mark.parametrize("value", ["3", None, torch.ones(2)], ids=str)
def test_a_step_that_is_no_number_is_refused(value: Any) -> None:
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    changed = edit(["state", 0, "step"], value)(optimizer.state_dict())
    with pytest.raises((TypeError, ValueError), match=r"^state_dict\['state'\]\[0\]"):
        pytorch.import_state([np.zeros(3, np.float32)], changed)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_memory_of_their_own_are_refused() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(3)
    ones = [torch.ones(2), torch.ones(3)]
    seen = []

    def look(tensor: torch.Tensor) -> torch.Tensor:
        with pytest.raises(TypeError, match=r"^tensors\['w'\] must "):
            pytorch.arrays({"w": tensor})
        seen.append(tensor)
        return tensor

    for tensor in (
        fake,
        torch.nested.nested_tensor(ones),
        torch.nested.nested_tensor(ones, layout=torch.jagged),
    ):
        look(tensor)
    torch.vmap(look)(torch.ones(2, 3))
    torch.func.grad(lambda tensor: look(tensor).sum())(torch.ones(3))
    assert len(seen) == 5


def test_containers_that_hold_themselves_are_refused() -> None:
    inside: list[Any] = [torch.ones(2)]
    inside.append(inside)
    with pytest.raises(
        ValueError, match=r"^tensors must be nested 100 levels deep at most, as params of init\(\) are"
    ):
        pytorch.arrays(inside)


def test_half_is_stepped_where_it_lies() -> None:
    weight = torch.zeros(3, dtype=torch.float16)
    params = pytorch.arrays([weight])
    fm.step(params, [np.ones(3, np.float32)], fm.init(params, lr=0.5))
    assert weight.tolist() == [-0.5, -0.5, -0.5]


def test_a_model_in_place_of_its_arrays_is_named() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"must have 2 arrays, .*, not 1; pass pytorch\.arrays\(\) of the model$"
    ):
        pytorch.import_state(model, optimizer.state_dict())


def test_names_in_the_order_of_the_model_are_explained() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD([{"params": [model.bias]}, {"params": [model.weight]}], lr=0.1, momentum=0.9)
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match="must have the shape of") as raised:
        pytorch.import_state(pytorch.arrays(model), optimizer.state_dict(), names=["weight", "bias"])
    assert raised.value.__notes__ == [
        "The parameters are paired in the order of the groups, which is that of names, too."
    ]

"""What messages say: a row for each situation, with the words that help, and the page that shows all of them.

`python tests/test_messages.py` writes the page anew.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import importlib.util
import operator
import re
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import theory, tuning

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).resolve().parents[1] / "docs" / "howto" / "messages.md"
BEGIN, END = "<!-- situations -->\n", "<!-- end of situations -->\n"


class Layer:
    def __init__(self) -> None:
        self.W, self.b = np.ones((3, 2)), np.ones(2)
        self.dW, self.db = np.ones((3, 2)), np.ones(2)


@dataclasses.dataclass
class Named:
    name: str
    w: Any


class Column:
    """Has what columns of pandas, polars and xarray have."""

    def to_numpy(self) -> Any:
        return np.ones(2)


class Situation(NamedTuple):
    what: str  # the code, as the page shows it
    words: str  # that must be there
    call: Callable[[], Any]
    needs: str = ""  # a library


class Chapter(NamedTuple):
    title: str
    situations: list[Situation]


w, b = np.ones((3, 2)), np.ones(2)


def state_of(params: Any) -> fm.State:
    return fm.init(params, lr=0.1)


def init(params: Any) -> Callable[[], Any]:
    return lambda: fm.init(params, lr=0.1)


def step(shape: tuple[int, ...], grads: Any) -> Callable[[], Any]:
    return lambda: fm.step(p := np.ones(shape), grads, state_of(p))


def called_init(**keywords: Any) -> Callable[[], Any]:
    return lambda: fm.init(w, **keywords)


def setting(name: str) -> Callable[[], Any]:
    return lambda: setattr(state_of(w), name, 1)


def torch() -> Any:
    return importlib.import_module("torch")


def sparse() -> Any:
    return importlib.import_module("scipy.sparse").csr_array(np.eye(2))


CHAPTERS = [
    Chapter("Keywords", [
        *[
            Situation(f"fm.init(params, lr=0.1, {name}=0.9)", f"use {ours}", called_init(lr=0.1, **{name: 0.9}))
            for name, ours in [("beta", "momentum"), ("gamma", "momentum"), ("mu", "momentum"), ("momentun", "momentum"), ("decay", "weight_decay"),
                               ("wd", "weight_decay"), ("nestrov", "nesterov"), ("nesterovs_momentum", "nesterov"), ("max_norm", "clip_norm")]
        ],
        Situation("fm.init(params, learning_rate=0.1)", "use lr", called_init(learning_rate=0.1)),
        Situation("fm.init(params, alpha=0.1)", "use lr", called_init(alpha=0.1)),
        Situation("fm.init(params, learning_rate=0.1, beta=0.9)", "for beta use momentum", called_init(learning_rate=0.1, beta=0.9)),
        Situation("fm.adam(params, lr=0.1, betas=(0.9, 0.999))", "use beta1 and beta2", lambda: fm.adam(w, lr=0.1, betas=(0.9, 0.999))),
        Situation("fm.init(params)", "add lr=0.01", called_init()),
        Situation("fm.init(params, 0.1)", "by name, such as lr=", lambda: fm.init(w, 0.1)),
        Situation("fm.step(params, grads)", "init() makes it", lambda: fm.step(w, w)),
        Situation("fm.step(parameters, gradients=g, state=state)", "use grads", lambda: fm.step(w, gradients=w, state=state_of(w))),
        Situation("fm.step(params, grads, state, 2.0)", "such as grad_scale=", lambda: fm.step(w, w, state_of(w), 2.0)),
        Situation("fm.lookahead(params, state, output=p)", "use out", lambda: fm.lookahead(w, state_of(w), output=w)),
        Situation("fm.minimize(fun, x0, max_iter=9)", "use maxiter", lambda: fm.minimize(lambda p: (0.0, p), w, max_iter=9)),
        Situation("fm.Checkpoints(folder, max_to_keep=3)", "use keep", lambda: fm.Checkpoints(".", max_to_keep=3)),
        Situation("fm.theory.rate(1.0, lr=0.1, beta=0.9)", "rate() must not have the keyword beta; use momentum", lambda: theory.rate(1.0, lr=0.1, beta=0.9)),
        Situation("fm.tuning.cosine(lr=0.1, T_max=10)", "for T_max use steps", lambda: tuning.cosine(lr=0.1, T_max=10)),
    ]),
    Chapter("What params may be", [
        Situation("fm.init([1.0, 2.0], lr=0.1)", "numpy.array() of the list", init([1.0, 2.0])),
        Situation("fm.init((1.0, 2.0), lr=0.1)", "numpy.array() of the list", init((1.0, 2.0))),
        Situation("fm.init({'w': 1.0}, lr=0.1)", "0-d array", init({"w": 1.0})),
        Situation("fm.init({'w': numpy.float64(1)}, lr=0.1)", "use a 0-d array", init({"w": np.float64(1)})),
        Situation("fm.init((a for a in arrays), lr=0.1)", "make a list by list()", init(a for a in [w])),
        Situation("fm.init({w, b}, lr=0.1)", "pass a list", init({1, 2})),
        Situation("fm.init(arrays.values(), lr=0.1)", "list()", init({"w": w}.values())),
        Situation("fm.init(collections.deque(arrays), lr=0.1)", "list()", init(collections.deque([w]))),
        Situation("fm.init(collections.UserDict(w=w), lr=0.1)", "dict()", init(collections.UserDict(w=w))),
        Situation("fm.init(None, lr=0.1)", "leave it out", init(None)),
        Situation("fm.init({'w': w, 'b': None}, lr=0.1)", "leave it out", init({"w": w, "b": None})),
        Situation("fm.init(layer, lr=0.1)", "{'W': layer.W, 'b': layer.b}", init(Layer())),
        Situation("fm.init([layer, layer], lr=0.1)", "{'W': layer.W, 'b': layer.b}", init([Layer(), Layer()])),
        Situation("fm.init(types.SimpleNamespace(w=w), lr=0.1)", "vars()", init(SimpleNamespace(w=w))),
        Situation("fm.init('model.npz', lr=0.1)", "load()", init("model.npz")),
        Situation("fm.init(array.array('f', [1.0]), lr=0.1)", "numpy.asarray()", init(array.array("f", [1.0]))),
        Situation("fm.init(numpy.matrix([[1.0]]), lr=0.1)", "numpy.asarray()", init(np.ones((1, 1)).view(np.matrix))),
        Situation("fm.init(numpy.ma.ones(2), lr=0.1)", ".filled()", init(np.ma.ones(2))),
        Situation("a column of pandas, polars or xarray as params", ".to_numpy()", init(Column())),
        Situation("fm.init(scipy.sparse.csr_array(a), lr=0.1)", ".toarray()", lambda: init(sparse())(), "scipy"),
        Situation("fm.init(torch.ones(2), lr=0.1)", "pytorch.arrays()", lambda: init(torch().ones(2))(), "torch"),
        Situation("fm.init(list(model.parameters()), lr=0.1)", "pytorch.arrays()", lambda: init(list(torch().nn.Linear(2, 1).parameters()))(), "torch"),
        Situation("fm.init(model.parameters(), lr=0.1)", "make a list", lambda: init(torch().nn.Linear(2, 1).parameters())(), "torch"),
        Situation("fm.init(model, lr=0.1)", "pytorch.arrays()", lambda: init(torch().nn.Linear(2, 1))(), "torch"),
        Situation("fm.init(jax.numpy.ones(2), lr=0.1)", "numpy.array()", lambda: init(importlib.import_module("jax").numpy.ones(2))(), "jax"),
    ]),
    Chapter("What their elements may be", [
        Situation("fm.init(numpy.arange(3), lr=0.1)", ".astype('float64'), which rounds above 2**53", init(np.arange(3, dtype=np.int64))),
        Situation("fm.init(numpy.ones(3, bool), lr=0.1)", ".astype('float32')", init(np.ones(3, bool))),
        Situation("fm.init(numpy.array([w, b], object), lr=0.1)", "list()", init(np.array([w, None], object))),
        Situation("fm.init(numpy.ones(2, [('x', 'f4')]), lr=0.1)", "{'x': array['x']}", init(np.ones(2, [("x", "f4")]))),
        Situation("a complex gradient of a real parameter", "give init() complex params", step((3,), np.ones(3, complex))),
        Situation("a float32 gradient of a float64 parameter", ".astype('float64')", step((3,), np.ones(3, np.float32))),
        Situation("an integer gradient", ".astype('float64')", step((3,), np.ones(3, np.int32))),
    ]),
    Chapter("Gradients", [
        Situation("a list of floats as the gradient", "numpy.array()", step((2,), [1.0, 2.0])),
        Situation("a sparse matrix as the gradient", "scipy_sparse.rows()", lambda: step((2, 2), sparse())(), "scipy"),
        Situation("a tensor as the gradient", "pytorch.grads()", lambda: step((2,), torch().ones(2))(), "torch"),
        Situation("a float as the gradient of a 0-d array", "numpy.array(1.0)", step((), 1.0)),
        Situation("shape (3,) for (3, 1)", ".reshape((3, 1))", step((3, 1), np.ones(3))),
        Situation("shape (3, 1) for (3,)", ".reshape((3,))", step((3,), np.ones((3, 1)))),
        Situation("shape (1,) for ()", ".reshape(())", step((), np.ones(1))),
        Situation("shape (4, 3) for (3, 4)", ".T", step((3, 4), np.ones((4, 3)))),
        Situation("shape (5, 3) for (3,)", "not (5, 3)", step((3,), np.ones((5, 3)))),
    ]),
    Chapter("What can be set", [
        Situation("state.learning_rate = 1", "state.lr", setting("learning_rate")),
        Situation("state.beta = 1", "state.momentum", setting("beta")),
        Situation("state.form = 'ema'", "state.to_form()", setting("form")),
        Situation("state.velocity = v", "load_state_dict()", setting("velocity")),
        Situation("state.step_count = 1", "load_state_dict()", setting("step_count")),
        Situation("state.velocity_dtype = 'float16'", "make a state with it", setting("velocity_dtype")),
        Situation("state.rule = 'adam'", "by the function of its name", setting("rule")),
        Situation("state.velocity['w'] = v", "does not support item assignment", lambda: operator.setitem(state_of({"w": w}).velocity, "w", w)),
    ]),
    Chapter("Tuning and theory", [
        Situation("tuning.range_test(loss, params)", "must return (loss, grads)", lambda: tuning.range_test(lambda _: 1.0, w)),
        Situation("theory.optimal(-0.1, 2.0)", "nearer to a minimum", lambda: theory.optimal(-0.1, 2.0)),
    ]),
]  # fmt: skip
SITUATIONS = [situation for chapter in CHAPTERS for situation in chapter.situations]


def is_here(situation: Situation) -> bool:
    return not situation.needs or importlib.util.find_spec(situation.needs) is not None


def said(situation: Situation) -> str:
    with pytest.raises((TypeError, ValueError, AttributeError)) as raised:
        situation.call()
    name = type(raised.value).__name__
    return f"{name}: {raised.value}".replace(f"{__name__}.", "")


def rows_of_page() -> dict[str, str]:
    return dict(re.findall(r"^\| `?(.*?)`? \| `(\w+: .*)` \|$", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.what)
def test_the_message_helps_and_is_on_the_page(situation: Situation) -> None:
    """Where a library is missing, its row of the page has to have the words, at least."""
    on_page = rows_of_page()[situation.what]
    assert situation.words in on_page
    if is_here(situation):
        assert on_page == said(situation)


def test_the_page_has_no_other_rows() -> None:
    assert list(rows_of_page()) == [situation.what for situation in SITUATIONS]


def test_no_message_prints_a_signature() -> None:
    for message in rows_of_page().values():
        assert not re.search(r"\w+=\w+, \w+=", message), message


@pytest.mark.parametrize("thing", [SimpleNamespace(w=w), MappingProxyType({"w": w}), Layer(), [w]], ids=repr)
def test_what_messages_advise_works(thing: Any) -> None:
    given = {"W": thing.W, "b": thing.b} if isinstance(thing, Layer) else vars(thing) if isinstance(thing, SimpleNamespace) else thing  # fmt: skip
    assert state_of(given).step_count == 0


def test_objects_that_raise_when_they_are_asked_get_the_message_all_the_same() -> None:
    class Loud:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    with pytest.raises(TypeError, match=r"^params must be a numpy\.ndarray, not .*Loud$"):
        fm.init(Loud(), lr=0.1)  # type: ignore[arg-type]  # which is what is refused


def test_a_tuner_that_turns_noisy_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    params = np.ones(3)
    state = fm.init(params, lr=1e-5)
    tuner = tuning.AutoTuner(state)
    for _ in range(20):
        grads = params + rng.normal(size=3)
        tuner(params, grads)
        fm.step(params, grads, state)
    assert tuner.noisy
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "central differences" in caplog.text


def test_describe_at_the_limit() -> None:
    state = fm.init(np.ones(2), lr=theory.stability_limit(2.0, momentum=0.5), momentum=0.5)
    assert ", at the limit 1.5\n" in str(theory.describe(state, (1, 2)))


def write_page() -> None:
    """Rows whose library is missing stay as they are."""
    before = rows_of_page() if PAGE.exists() else {}
    head, rest = PAGE.read_text().split(BEGIN)
    tail = rest.split(END)[1]
    text = ""
    for chapter in CHAPTERS:
        text += f"\n## {chapter.title}\n\n| what was handed over | what it says |\n|---|---|\n"
        for situation in chapter.situations:
            what = (
                f"`{situation.what}`" if situation.what.startswith(("fm.", "state.", "t")) else situation.what
            )
            message = said(situation) if is_here(situation) else before[situation.what]
            text += f"| {what} | `{message}` |\n"
    PAGE.write_text(head + BEGIN + text + "\n" + END + tail)


if __name__ == "__main__":
    write_page()

r"""
Skip-gram: the few rows of a table that a batch touches
=======================================================

Words get vectors such that words that stand near one another can be told from others. Skip-gram with negative sampling has
two tables, with a row :math:`v_w` of one and a row :math:`u_w` of the other for each word, and takes steps down

.. math:: -\log \sigma(u_c^T v_w) - \sum_{n} \log \sigma(-u_n^T v_w)

for a word :math:`w`, one :math:`c` beside it, and five others :math:`n` by chance. A batch touches some hundred rows of
tables that have thousands. What one writes for these rows alone::

    rows, places = np.unique(indices, return_inverse=True)
    sums = np.zeros((len(rows), table.shape[1]), table.dtype)
    np.add.at(sums, places, values)
    velocity[rows] = momentum * velocity[rows] + sums
    table[rows] -= lr * velocity[rows]

is a step with ``fm.Rows(indices, values)``. The text is made here: 100 topics of 20 words each, whose frequencies fall
like one over the rank; half of the words of a sentence are of its topic.

What is found:

- **The tables of both are the same, to the bit**, after 3000 batches.
- The dense step, with zeros for all other rows, is ahead at first, as its velocities move a word that is not there; in a
  step of rows they wait for it. Both end at the same loss, to a hundredth.
- Of the 500 most frequent words 97 % have a word of their own topic as the nearest one; of the others, which were in
  fewer batches, 87 %, by either way.

The last lines that are printed are how long the dense step and the lines above take, as multiples of a step of rows, for a
batch of 1000 and tables of 200,000 x 64.

T. Mikolov, I. Sutskever, K. Chen, G. Corrado, J. Dean, Distributed representations of words and phrases and their
compositionality, 2013.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot
from fast_momentum._bench.timing import interleaved

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from fast_momentum._bench.timing import Times

    Array = NDArray[Any]
    # For each table: which rows, and the gradient of each.
    Grads: TypeAlias = list[tuple[Array, Array]]
    Stepper: TypeAlias = Callable[[Grads], None]

WORDS, TOPICS, WIDTH = 2000, 100, 16
SENTENCES, LENGTH, REACH = 20_000, 10, 2
BATCH, NOISE, STEPS = 256, 5, 3000
LR, MOMENTUM = 2.0, 0.9  # of the mean over a batch, of which a row has a small part
MEAN = 50  # losses, for the picture
TIMED_WORDS, TIMED_WIDTH, TIMED_BATCH = 200_000, 64, 1000


class Found(NamedTuple):
    losses: dict[str, Array]
    tables: dict[str, list[Array]]


def frequencies(words: int) -> Array:
    """Zipf's law."""
    weights = 1 / np.arange(1, words + 1)
    return np.asarray(weights / weights.sum())


def drawn(weights: Array, shape: Any, rng: np.random.Generator) -> Array:
    """Indices that are as frequent as `weights` say."""
    sums = weights.cumsum()
    return np.asarray(np.minimum(sums.searchsorted(rng.random(shape) * sums[-1]), len(weights) - 1))


def text(rng: np.random.Generator) -> Array:
    """Sentences, one a row. Word w has the rank w, and belongs to the topic w % TOPICS."""
    of_all = drawn(frequencies(WORDS), (SENTENCES, LENGTH), rng)
    of_topic = drawn(frequencies(WORDS // TOPICS), (SENTENCES, LENGTH), rng) * TOPICS
    of_topic += rng.integers(0, TOPICS, (SENTENCES, 1))
    return np.where(rng.random((SENTENCES, LENGTH)) < 0.5, of_all, of_topic)


def gradients(tables: list[Array], words: Array, near: Array, noise: Array) -> tuple[float, Grads]:
    vectors, others = tables
    targets = np.concatenate([near[:, None], noise], axis=1)
    v, u = vectors[words], others[targets]
    signs = np.where(np.arange(targets.shape[1]) == 0, 1, -1).astype(v.dtype)
    scores = signs * np.einsum("bd,bkd->bk", v, u)
    errors = -signs / (1 + np.exp(scores)) / len(words)
    of_others = errors[..., None] * v[:, None]
    loss = np.log1p(np.exp(-scores)).sum() / len(words)
    return float(loss), [
        (words, np.einsum("bk,bkd->bd", errors, u)),
        (targets.ravel(), of_others.reshape(-1, v.shape[1])),
    ]


def with_rows(tables: list[Array]) -> Stepper:
    state = fm.init(tables, lr=LR, momentum=MOMENTUM)
    return lambda grads: fm.step(tables, [fm.Rows(*grad) for grad in grads], state)


def numpy_on_rows(tables: list[Array]) -> Stepper:
    velocities = [np.zeros_like(table) for table in tables]

    def step(grads: Grads) -> None:
        for table, velocity, (indices, values) in zip(tables, velocities, grads, strict=True):
            rows, places = np.unique(indices, return_inverse=True)
            sums = np.zeros((len(rows), table.shape[1]), table.dtype)
            np.add.at(sums, places, values)
            velocity[rows] = MOMENTUM * velocity[rows] + sums
            table[rows] -= LR * velocity[rows]

    return step


def dense(tables: list[Array]) -> Stepper:
    state, whole = fm.init(tables, lr=LR, momentum=MOMENTUM), [np.zeros_like(table) for table in tables]

    def step(grads: Grads) -> None:
        for table, (indices, values) in zip(whole, grads, strict=True):
            np.add.at(table, indices, values)
        fm.step(tables, whole, state, zero_grads=True)

    return step


WAYS: dict[str, Callable[[list[Array]], Stepper]] = {
    "rows": with_rows,
    "NumPy on rows": numpy_on_rows,
    "dense": dense,
}


def new_tables(words: int, width: int, rng: np.random.Generator) -> list[Array]:
    vectors = (rng.random((words, width), np.float32) - np.float32(0.5)) / width
    return [vectors, np.zeros_like(vectors)]


def train(way: str) -> tuple[Array, list[Array]]:
    rng = np.random.default_rng(0)
    sentences, noise = text(rng), frequencies(WORDS) ** 0.75
    tables = new_tables(WORDS, WIDTH, rng)
    step, losses = WAYS[way](tables), np.empty(STEPS)
    for t in range(STEPS):
        sentence = rng.integers(0, SENTENCES, BATCH)
        place = rng.integers(0, LENGTH - REACH, BATCH)
        words = sentences[sentence, place]
        near = sentences[sentence, place + rng.integers(1, REACH + 1, BATCH)]
        losses[t], grads = gradients(tables, words, near, drawn(noise, (BATCH, NOISE), rng))
        step(grads)
    return losses, tables


def experiment() -> Found:
    found = {way: train(way) for way in WAYS}
    return Found(
        losses={way: losses for way, (losses, _) in found.items()},
        tables={way: tables for way, (_, tables) in found.items()},
    )


def has_neighbour(vectors: Array) -> Array:
    """Whether the word whose vector is nearest in direction is of the same topic, for each word."""
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = directions @ directions.T
    np.fill_diagonal(likeness, -1)
    return np.asarray(likeness.argmax(axis=1) % TOPICS == np.arange(len(vectors)) % TOPICS)


def smoothed(losses: Array) -> Array:
    return np.asarray(losses.reshape(-1, MEAN).mean(axis=1))


def draw(found: Found) -> Figure:
    figure, (above, below) = plt.subplots(2, 1, figsize=(plot.WIDTH, 7), layout="constrained")
    shown = ("rows", "dense")
    steps = np.arange(MEAN // 2, STEPS, MEAN)
    plot.loss_curves(
        above, {way: (steps, smoothed(found.losses[way])) for way in shown}, xlabel="batch", log=False
    )
    for way, style in zip(shown, plot.STYLES, strict=False):
        share = has_neighbour(found.tables[way][0]).reshape(-1, TOPICS).mean(axis=1)
        below.plot(np.arange(TOPICS // 2, WORDS, TOPICS), 100 * share, **style, label=way)
    below.set(xlabel="rank of the word", ylabel="nearest word of same topic, %", ylim=(60, 102))
    plot.with_grid(below)
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def times() -> Times:
    """Of a step of one batch in large tables."""
    rng = np.random.default_rng(0)
    tables, weights = new_tables(TIMED_WORDS, TIMED_WIDTH, rng), frequencies(TIMED_WORDS)
    words, near = drawn(weights, (2, TIMED_BATCH), rng)
    noise = drawn(weights**0.75, (TIMED_BATCH, NOISE), rng)
    grads = gradients(tables, words, near, noise)[1]
    steppers = {way: make(tables) for way, make in WAYS.items()}
    return interleaved({way: partial(step, grads) for way, step in steppers.items()}, budget=1.0)


def main() -> None:
    found = experiment()
    for way, losses in found.losses.items():
        neighbours = has_neighbour(found.tables[way][0])
        print(f"{way:13} loss {losses[:MEAN].mean():.3f}, in the end {losses[-500:].mean():.3f}; "
              f"nearest word of the same topic: {neighbours[:500].mean():.0%} of the 500 most frequent words, "
              f"{neighbours[500:].mean():.0%} of the others")  # fmt: skip
    ours, theirs = found.tables["rows"], found.tables["NumPy on rows"]
    print("rows and NumPy on rows, bit for bit the same:", all(map(np.array_equal, ours, theirs)))
    took = times()
    for way in ("NumPy on rows", "dense"):
        print(f"{way} took {took.ratio(way, 'rows').median:.1f} times as long as a step of rows")
    draw(found).savefig("skip_gram.png", dpi=150)
    print("Picture: skip_gram.png")


if __name__ == "__main__":
    main()

"""Measure whole programs with and without our step, and write docs/field.md and its picture.

    nox -s field

Two minutes, with every library that takes part; BLAS on one thread, so that programs do not fight for the cores.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from fast_momentum._bench import field
from fast_momentum._bench.machine import cpus, processor, system
from fast_momentum._bench.programs import AS_IT_IS
from fast_momentum._bench.views import title

DOCS = Path(__file__).parents[1] / "docs"

ABOUT = """# In the field

What a faster step gains where it is used: whole programs, with the step that they have and with ours. Each is short: a loop
as it is written in courses and papers, or a library and our adapter for it. This measures the same on your machine, with the
libraries that are installed there:

```sh
python -m fast_momentum bench --field
```
"""

PICTURE = """<!-- picture -->
![Time of whole programs as they are, the share of the step in them, and with fast_momentum](pictures/field.svg)
<!-- end of picture -->
"""

HOW = """Medians, in brackets the quartiles, of runs in turns, in an order that is drawn anew for each round. Every run of a
program ends with the same bits, whoever makes its steps; the measurement stops if not. Of `as it is`, the step is what the
program does itself between a gradient and the next; more than `1/(1 - share)` cannot be gained from it. `NumPy in place` are
four calls of NumPy with `out=`, with all that they need made beforehand, where the loop is our own. Of t-SNE the gains
are outside of our step, and inside of the share. The machine is shared with other work, and where the
quartiles are on both sides of 1 nothing can be told."""


def table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [field.HEADER, ["---"] * len(field.HEADER), *rows])


def document(found: list[field.Row | field.LeftOut]) -> str:
    rows, left_out = field.split(found)
    even = [row.program for row in rows if round(row.ratios[AS_IT_IS].median, 2) <= 1.02]
    lines = [ABOUT, PICTURE, table(field.cells(rows)), "", HOW, "", "What the programs are:", ""]
    lines += [f"- **{row.program}**: {row.what}" for row in rows]
    lines += [f"- **{row.program}** was left out: {row.why}" for row in left_out]
    if even:
        lines += ["", f"Nothing, or next to nothing, is gained in: {'; '.join(even)}."]
    lines += [
        "",
        f"Made by `nox -s field` on {dt.datetime.now(dt.UTC):%Y-%m-%d}; {title()}; {cpus()} CPUs, {system()}; BLAS and the step on one thread.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    found = list(field.measured())
    print(field.as_text(found))
    (DOCS / "field.md").write_text(document(found), encoding="utf-8")
    field.picture(found).savefig(DOCS / "pictures" / "field.svg")
    print(DOCS / "field.md", processor())


if __name__ == "__main__":
    main()

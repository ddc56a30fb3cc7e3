"""`python -m fast_momentum`: the configuration; `python -m fast_momentum bench`: how fast it is here."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import __version__, show_config


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m fast_momentum", description="Without a command: print the configuration."
    )
    parser.add_argument("--version", action="version", version=f"fast_momentum {__version__}")
    bench = parser.add_subparsers(dest="command").add_parser(
        "bench",
        help="measure the step on this machine, against NumPy and the peers that are installed; half a minute",
    )
    bench.add_argument(
        "--field",
        action="store_true",
        help="measure whole programs with their own step and with ours instead; a minute or two",
    )
    bench.add_argument("--json", action="store_true", help="print JSON, with the quartiles of the ratios")
    bench.add_argument(
        "--plot", type=Path, metavar="FILE", help="save a picture, of the kind that the name ends in"
    )
    arguments = parser.parse_args()
    if arguments.command == "bench" and arguments.plot:
        check_plot(bench, arguments.plot)
    return arguments


def check_plot(parser: argparse.ArgumentParser, path: Path) -> None:
    """Before half a minute is spent."""
    from ._bench.views import MORE, is_installed

    if not is_installed("matplotlib"):
        parser.error(f"--plot must have matplotlib, which is not installed. {MORE}")
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        parser.error(f"--plot must end in one of {', '.join(sorted(kinds))}, not be {str(path)!r}")
    if not path.absolute().parent.is_dir():
        parser.error(f"--plot must be in a folder that exists, not in {str(path.absolute().parent)!r}")


def bench_field(arguments: argparse.Namespace) -> None:
    from ._bench import field, views
    from ._bench.programs import PROGRAMS

    found = views.with_progress(field.measured(), len(PROGRAMS))
    print(field.as_json(found) if arguments.json else field.as_text(found))
    if arguments.plot:
        field.picture(found).savefig(arguments.plot)


def bench(arguments: argparse.Namespace) -> None:
    from ._bench import quick, views

    rows = views.with_progress(quick.measured(), len(quick.CASES))
    if arguments.json:
        print(views.as_json(rows))
    elif views.is_installed("rich"):
        views.print_richly(rows)
    else:
        views.print_plainly(rows)
    if arguments.plot:
        views.save_plot(rows, arguments.plot)
    if not arguments.json and not (views.is_installed("rich") and views.is_installed("matplotlib")):
        print(views.MORE)


def main() -> None:
    arguments = parsed()
    if arguments.command == "bench":
        (bench_field if arguments.field else bench)(arguments)
    else:
        show_config()


if __name__ == "__main__":
    main()

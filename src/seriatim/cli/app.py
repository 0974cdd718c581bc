"""The program `seriatim`: its verbs, and one line for each error that a user can make."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.core

from seriatim.cli.check import run as check
from seriatim.cli.classify import run as classify
from seriatim.cli.complete import run as complete
from seriatim.cli.data import run as data
from seriatim.cli.demo import run as demo
from seriatim.cli.errors import INTERRUPTED, as_line
from seriatim.cli.evaluate import run as evaluate
from seriatim.cli.explain import run as explain
from seriatim.cli.models import run as models
from seriatim.cli.report import run as report
from seriatim.cli.sample import run as sample
from seriatim.cli.score import run as score
from seriatim.cli.train import run as train
from seriatim.cli.translate import run as translate

DEBUG_VARIABLE = "SERIATIM_DEBUG"


class Program(typer.core.TyperGroup):
    """A group of verbs that turns errors into one line on stderr and an exit status."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        extra["standalone_mode"] = standalone_mode
        if not standalone_mode or os.environ.get(DEBUG_VARIABLE):
            return super().main(*args, **extra)
        try:
            status = super().main(*args, **extra | {"standalone_mode": False})
        except (Exception, SystemExit) as error:
            line, status = as_line(error)
            if line is None:
                raise
            print(line, file=sys.stderr)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # typer would make a status of it without a word
            print("seriatim: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Program,
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _reflowed(text: str | None) -> str:
    """Return a docstring with one line for each paragraph, to be wrapped to the terminal."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _version(wanted: bool) -> None:
    if wanted:
        from seriatim import __version__

        typer.echo(f"seriatim {__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    help="Exact-likelihood autoregressive models: log p(x|c) = sum_t log p(x_t | x_<t, c).\n\n"
    "Train on a table, an array or images, then score, explain, sample and complete. Results go to stdout, progress to "
    "stderr; --json makes results readable by machines. A wrong input is one line on stderr and exit status 2.",
)
def program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Show the help where no verb is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "sample": sample,
    "score": score,
    "complete": complete,
    "explain": explain,
    "classify": classify,
    "translate": translate,
    "check": check,
    "models": models,
    "data": data,
    "report": report,
    "demo": demo,
}

for _name, _verb in VERBS.items():
    app.command(_name, help=_reflowed(_verb.__doc__))(_verb)


def main() -> None:
    """Run the program: the console entry point."""
    app(prog_name="seriatim")

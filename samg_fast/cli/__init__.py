"""The ``samg-fast`` command.

Each command is a function in its own module, which imports heavy modules inside the function, and is registered below.
Its docstring is its help text; a form feed ends the part that is shown.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from samg_fast import __version__
from samg_fast.cli.adapt import adapt
from samg_fast.cli.annotate import annotate
from samg_fast.cli.bench import bench
from samg_fast.cli.build import build
from samg_fast.cli.cache import clear, list_engines
from samg_fast.cli.control import control
from samg_fast.cli.demo import demo
from samg_fast.cli.distill import distill
from samg_fast.cli.doctor import doctor
from samg_fast.cli.export import export
from samg_fast.cli.fit import fit
from samg_fast.cli.identify import identify
from samg_fast.cli.models import models
from samg_fast.cli.pull import pull
from samg_fast.cli.segment import segment
from samg_fast.errors import SamgError

__all__ = ["app", "main"]


class _Program(TyperGroup):
    """Turns the package's own exceptions into one line and an exit status; other exceptions keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the requested command."""
        try:
            return super().invoke(ctx)
        except SamgError as error:
            typer.echo(f"samg-fast: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("samg-fast: interrupted; files that were already written are whole", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=_Program,
    help="SAM-G masked observations for visual reinforcement learning, at the rate of the control loop.",
    epilog="\b\nExample:\n  samg-fast demo --out out",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"samg-fast {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    ctx: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # `auto` logs its choice at INFO. The settings are restored at the end, as a program may call this command.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("samg-fast: %(message)s"))
    logger = logging.getLogger("samg_fast")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # dm_control gives the root logger a handler, which would print every message again
    logger.propagate = False
    ctx.call_on_close(partial(setattr, logger, "propagate", propagate))
    ctx.call_on_close(partial(logger.setLevel, level))
    ctx.call_on_close(partial(logger.removeHandler, handler))


_cache = typer.Typer(help="See and empty the cache of compiled networks.", no_args_is_help=True)
app.add_typer(_cache, name="cache", epilog="\b\nExample:\n  samg-fast cache list")


def _add(command: Any, example: str, *, to: typer.Typer = app, name: str | None = None) -> None:
    # \b prevents rewrapping, so that the line can be copied
    to.command(name, epilog=f"\b\nExample:\n  {example}")(command)


_add(doctor, "samg-fast doctor")
_add(models, "samg-fast models")
_add(pull, "samg-fast pull efficientvit-sam-l0 dinov2-vits14")
_add(export, "samg-fast export --sam l0 --dino vits14 --precision fp16,int8")
_add(build, "samg-fast build tiny --backend tensorrt-rtx --compute-capability 8.9")
_add(list_engines, "samg-fast cache list", to=_cache, name="list")
_add(clear, "samg-fast cache clear", to=_cache)
_add(identify, "samg-fast identify walker.png mask.png --point 40,24 -o walker.safetensors")
_add(annotate, "samg-fast annotate walker.mp4 -o walker")
_add(adapt, "samg-fast adapt walker.safetensors walker.png mask.png -o walker.safetensors")
_add(segment, "samg-fast segment walker.mp4 --target walker.safetensors -o out")
_add(fit, "samg-fast fit walker.safetensors --frames walker.mp4 -o walker-fit")
_add(demo, "samg-fast demo --out out --json out/figures.json")
_add(control, "samg-fast control --task walker_walk --setting video_hard --hz 40 --seconds 20")
_add(bench, "samg-fast bench tiny --precision fp32,bf16 --threads 1,2")
_add(distill, "samg-fast distill --out distilled --clips videos")


def main() -> None:
    """Run the program with the command-line arguments, and exit."""
    app(prog_name="samg-fast")

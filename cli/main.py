"""The `dti-geom` command."""

import logging
import re
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from dti_geom import __version__
from dti_geom.errors import DtiGeomError
from dti_geom.probes.registry import PROBES

from .compare import compare
from .concepts import concepts
from .convert import convert
from .edit import edit
from .evaluate import evaluate
from .generate import generate
from .inflation import inflation
from .inspect import inspect
from .interpolate import interpolate
from .merge import merge
from .models import models
from .probing import probe_command
from .protocol import COMMANDS as PROTOCOL_COMMANDS
from .report import report
from .schema import schema
from .similarity import similarity
from .study import COMMANDS as STUDY_COMMANDS
from .sweep import sweep
from .train import train
from .translate import translate

app = typer.Typer(
    name="dti-geom",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Commands by purpose, each with the example that ends its help.
COMMANDS: dict[str, dict[Callable[..., None], str]] = {
    "Measure": {
        probe_command(probe): f"dti-geom {probe.name} {probe.example}" for probe in PROBES.values()
    },
    "Embedding files": {
        inspect: "dti-geom inspect ~/embeddings",
        convert: (
            "dti-geom convert old.pt --to diffusers --rescale mean --model sd15 --out converted"
        ),
        merge: (
            "dti-geom merge '0.7*<a> + 0.3*cat' --embedding a.safetensors --model sd15 --out merged"
        ),
        edit: "dti-geom edit my-token.safetensors --select 0,2 --out edited",
        similarity: "dti-geom similarity ~/embeddings",
        translate: (
            "dti-geom translate my-token.safetensors --model sd15 --target sdxl --out translated"
        ),
    },
    "Train, paint, score": {
        inflation: "dti-geom inflation --learning-rate 5e-4 --steps 3000 --model sd15",
        train: "dti-geom train --concept green-fox --steps 100 --out run",
        generate: (
            "dti-geom generate --embedding run --prompt 'a photo of a {}' --seeds 4 --out pictures"
        ),
        interpolate: (
            "dti-geom interpolate '<a>' '<b>' --embedding '<a>=runs/a' --embedding '<b>=runs/b' "
            "--out between"
        ),
        evaluate: "dti-geom evaluate runs/dti runs/ti --baselines --out evaluation",
        compare: "dti-geom compare evaluation --out comparison",
        sweep: "dti-geom sweep methods.yaml --dry-run",
    },
    "See": {
        report: "dti-geom report --model mini --embedding ~/embeddings --out report",
        models: "dti-geom models",
        concepts: "dti-geom concepts",
        schema: "dti-geom schema norms",
    },
}


def _help(command: Callable[..., None]) -> str:
    """Return the docstring with each paragraph on one line; the terminal breaks the lines."""
    return "\n\n".join(
        " ".join(paragraph.split()) for paragraph in (command.__doc__ or "").split("\n\n")
    )


for _purpose, _commands in COMMANDS.items():
    for _command, _example in _commands.items():
        app.command(help=_help(_command), epilog=f"Example: {_example}", rich_help_panel=_purpose)(
            _command
        )

# Commands of commands.
for _name, _what, _subcommands in (
    (
        "study",
        "Ask people: build a blind study, serve it, score the answers.",
        STUDY_COMMANDS,
    ),
    ("protocol", "Run a published experiment from its images to its tables.", PROTOCOL_COMMANDS),
):
    _group = typer.Typer(no_args_is_help=True, help=_what)
    _group.callback()(lambda: None)  # else a single command would stand for the group
    for _command, _example in _subcommands.items():
        _group.command(help=_help(_command), epilog=f"Example: {_example}")(_command)
    app.add_typer(_group, name=_name, rich_help_panel="Train, paint, score")


def _show_version(asked: bool) -> None:
    if asked:
        print(f"dti-geom {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors (works after a command too).")
    ] = False,
) -> None:
    """Measure the geometry of token embeddings in text-to-image models.

    Results go to standard output, progress and notices to standard error.
    """


def _shielded(argument: str) -> str:
    """Put a blank before a blend such as `-0.5*cat + dog`, which else reads as an option."""
    is_blend = re.match(r"-[^-].*[*+]", argument) or re.match(r"-(\d|\.|<|\S+ [+-] )", argument)
    return f" {argument}" if is_blend else argument


class _Notices(logging.Handler):
    """Prints what the library tells its users (`dti_geom.progress.notice`)."""

    def emit(self, record: logging.LogRecord) -> None:
        from .output import print_notice

        print_notice(record.getMessage())


def main() -> None:
    """Run the command line; errors become one red line and exit code 1."""
    from .output import accept_any_text

    for stream in (sys.stdout, sys.stderr):
        accept_any_text(stream)
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    logging.getLogger("dti_geom").addHandler(_Notices())
    arguments = [_shielded(argument) for argument in arguments if argument != "--debug"]
    try:
        app(args=arguments, prog_name="dti-geom")
    except BrokenPipeError:  # the reader, such as `head`, has closed its end
        sys.stderr.close()
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        from .failures import explain
        from .output import print_error

        known = str(error) if isinstance(error, DtiGeomError) else explain(error)
        print_error(
            known
            or f"unexpected {type(error).__name__}: {error}\n"
            "This is a bug; --debug shows where it comes from."
        )
        raise SystemExit(1) from None

"""`dti-geom models`."""

from typing import TYPE_CHECKING, Any

from . import options
from .output import print_json, print_section

if TYPE_CHECKING:
    from dti_geom.reporting.blocks import Section


def models(json: options.Json = False) -> None:
    """List what --model accepts, and what is already on this machine."""
    from dti_geom.models import MODELS, is_here

    listed = [
        {
            "name": known.name,
            "what": known.what,
            "source": known.repositories[0] if known.repositories else "ships with dti-geom",
            "here": is_here(known),
            "gigabytes": known.gigabytes,
            "terms": known.terms or None,
        }
        for known in MODELS.values()
    ]
    if json:
        print_json(listed)
        return
    print_section(_models_section(listed))


def _models_section(listed: list[dict[str, Any]]) -> "Section":
    from dti_geom.reporting.blocks import Column, Note, Section, Table

    columns = [
        Column("name", kind="text"),
        Column("what", kind="text"),
        Column("GB", digits=3),
        Column("terms", kind="text"),
        Column("here", kind="text"),
        Column("weights from", kind="path"),
    ]
    keys = ("name", "what", "gigabytes", "terms", "here", "source")
    rows = [[model[key] for key in keys] for model in listed]
    also = (
        "Also: any Hub id (org/name), any pipeline folder, any folder of a single text encoder or "
        "causal LM, and single-file checkpoints (.safetensors) of SD 1.5, SD 2.1 and SDXL. A name "
        "or a Hub id may end in @revision: a branch, a tag or a commit. A checkpoint may end in "
        "@model: the model or folder whose configuration and tokenizer it takes."
    )
    return Section("Models", [Table("", columns, rows), Note(also)])

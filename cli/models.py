"""`dti-geom models`."""

from . import options
from .output import print_json, print_line, print_table


def models(json: options.Json = False) -> None:
    """What --model accepts, and what is already on this machine."""
    from dti_geom.models import MODELS, is_here

    listed = [
        {
            "name": known.name,
            "what": known.what,
            "source": known.repositories[0] if known.repositories else "ships with dti-geom",
            "here": is_here(known),
        }
        for known in MODELS.values()
    ]
    if json:
        print_json(listed)
        return
    print_table(
        "",
        ["name", "what", "here"],
        [(one["name"], one["what"], "yes" if one["here"] else "no") for one in listed],
    )
    print_table("", ["name", "weights from"], [(one["name"], one["source"]) for one in listed])
    print_line(
        "Also: any Hub id (org/name), any pipeline folder, any folder of a single text encoder or causal LM."
    )

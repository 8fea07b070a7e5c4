"""What axe-core has to say of a page."""

from typing import Any


def complaints(page: Any) -> list[str]:
    """Return what axe-core calls serious or critical: the rule, its impact and the first places."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}), {len(rule['nodes'])}: "
        + "; ".join(node["html"][:150] for node in rule["nodes"][:3])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]

"""The pages pass axe-core: names, roles, contrast and keyboard."""

from collections.abc import Callable
from typing import Any

import pytest

from accessible import complaints

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]  # (width, scheme) to a page


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1280, "dark")])
def test_every_section_is_accessible(open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(width=width, scheme=scheme)
    assert not complaints(page)
    # What it would say of a button without a name, and of grey on grey.
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('afterbegin',"
        " '<button></button><p style=\"color:#888;background:#999\">faint</p>')"
    )
    assert {line.split()[0] for line in complaints(page)} == {"button-name", "color-contrast"}

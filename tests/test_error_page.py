"""docs/errors.md: what each error of boost means, under its code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs
import pytest
from boost_core import errors
from boost_core.errors import BoostError

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
ERRORS = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, BoostError)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_has_a_section(kind: type[BoostError]) -> None:
    """The page says under an error's code what it is called, what it means and what it carries."""
    page = PAGE.read_text(encoding="utf-8")

    section = re.search(rf"^## {kind.code}\n\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)

    assert section is not None
    assert section[1].startswith(f"`{kind.__name__}`")
    for field in attrs.fields(kind) if attrs.has(kind) else ():
        assert f"`{field.name}`" in section[1]


def test_the_page_names_no_error_that_doesnt_exist() -> None:
    """Headings of the second level are the codes, in order."""
    headings = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert headings == sorted(kind.code for kind in ERRORS)

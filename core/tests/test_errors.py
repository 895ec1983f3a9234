"""The errors themselves: their codes, and that they survive copies, pipes and printing."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import attrs
import pytest
from boost_core import App, errors
from boost_core.errors import BadOption, BoostError, Provider, ResultTimeout, text_of, traceback_text

ERRORS = sorted(
    (one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, BoostError)),
    key=lambda one: one.__name__,
)
EXAMPLES = {
    "int": 3,
    "float": 1.5,
    "bool": True,
    "Sequence[int]": (1, 2),
    "Sequence[str]": ("one", "two"),
    "Sequence[object]": (1,),
}
every_error = pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)


def example(kind: type[BoostError]) -> tuple[BoostError, dict[str, Any]]:
    """Return an error with all of its fields set, and the fields."""
    fields = {field.name: field.type for field in attrs.fields(kind)} if attrs.has(kind) else {}
    given = {name: EXAMPLES.get(str(wanted), f"the {name}") for name, wanted in fields.items()}
    if "providers" in given and "Provider" in str(fields["providers"]):
        given["providers"] = (Provider("acme-one", "1.0", "/one"), Provider("acme-two", "2.0", "/two"))
    return kind(**given), given


def test_codes_are_unique_and_readable() -> None:
    """A code is a few words in lower case, and means one error."""
    codes = [kind.code for kind in ERRORS]

    assert len(set(codes)) == len(codes)
    assert not [code for code in codes if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)]


@every_error
def test_an_error_has_a_code_and_a_docstring_of_its_own(kind: type[BoostError]) -> None:
    """Nobody inherits the code of another, or says nothing of what the error means."""
    assert "code" in vars(kind)
    assert (vars(kind).get("__doc__") or "").strip().endswith(".")


@every_error
def test_an_error_survives_copies_and_pickles(kind: type[BoostError]) -> None:
    """Type, fields, text and added notes are the same on the other side of a pipe."""
    error, given = example(kind)
    error.add_note("and more")

    for same in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(same) is kind
        assert {name: getattr(same, name) for name in given} == given
        assert (str(same), same.__notes__) == (str(error), ["and more"])


@every_error
def test_an_error_says_what_it_knows(kind: type[BoostError]) -> None:
    """Each text that an error carries for its reader stands in it; JobFailed keeps the traceback as a field."""
    error, given = example(kind)
    aside = {"traceback", "installed"}  # shown where nothing else helps

    text = str(error)
    for name, value in given.items():
        if isinstance(value, str) and name not in aside:
            assert value in text
    assert not text.endswith("\n")
    if attrs.has(kind):
        assert text
        assert "Sequence" not in text


def test_an_error_can_be_raised_again_and_noted(app: App) -> None:
    """app.check raises the first problem and notes all others on it."""
    app.boost("one", retrys=1)(lambda: None)
    app.boost("two", concurrency=0)(lambda: None)

    with pytest.raises(BadOption) as caught:
        app.check()

    assert str(caught.value) == "a task has no option 'retrys'. Did you mean 'retries'?"
    assert caught.value.__notes__ == [
        "also: task 'two': option concurrency=0 can't be used: it must be at least 1",
    ]


def test_errors_are_told_apart_by_identity() -> None:
    """Two errors with the same fields are two events, and can stand in sets."""
    one, other = BadOption("wrong"), BadOption("wrong")

    assert one != other
    assert len({one, other}) == 2


def test_a_result_that_doesnt_come_is_a_timeout() -> None:
    """``except TimeoutError`` catches it."""
    with pytest.raises(TimeoutError):
        raise ResultTimeout("1f", 2.5)
    assert str(ResultTimeout("1f", 2.5)) == "job 1f has no result after 2.5 s."


def test_texts_of_users_errors_can_always_be_had() -> None:
    """Whatever their own code does, and whatever characters they hold: a worker has to write them down."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise SystemExit(1)

        def __bool__(self) -> bool:
            raise RuntimeError

    try:
        raise Odd
    except Odd as error:
        odd = traceback_text(error)

    shown = "<Odd without a text: its __str__ raised SystemExit>"
    assert text_of(Odd()).replace(f"{Odd.__qualname__} ", "Odd ") == shown
    assert odd.splitlines()[-1].endswith("without a text: its __str__ raised SystemExit>")
    assert "raise Odd" in odd
    assert text_of("menu\udce9 \N{SNOWMAN}") == "menu\\udce9 \N{SNOWMAN}"
    assert traceback_text(ValueError("menu\udce9")) == "ValueError: menu\\udce9\n"
    assert len(text_of("x" * 5000)) == 1024


def test_a_long_traceback_loses_its_middle() -> None:
    """Its head and its end, where the error stands, are kept; the text says how much is missing."""

    def raised(text: str) -> BaseException:
        try:
            raise ValueError(text)
        except ValueError as error:
            return error

    short = traceback_text(raised("brief"))
    long = traceback_text(raised("x" * 50_000 + " the end"), limit=1000)

    assert short.startswith("Traceback (most recent call last):\n")
    assert short.endswith("ValueError: brief\n")
    assert long.startswith("Traceback (most recent call last):\n")
    assert long.endswith("x the end\n")
    assert re.search(r"\n  \[\.\.\. \d+ characters left out \.\.\.\]\n", long)
    assert len(long) < 1100

"""Options: how they are declared, what users may write, what is refused, and what never shows."""

from __future__ import annotations

import copy
import datetime
import math
import pickle
from typing import Any

import attrs
import pytest
from boost_core import Secret
from boost_core.errors import BadOption
from boost_core.options import build_options
from boost_core.plugin import duration, mask_url, option


def _small(value: int) -> str | None:
    return None if value < 10 else "it must be under 10"


def _upper(value: Any) -> str:
    if value == "lower":
        message = f"{value!r} isn't loud"
        raise ValueError(message)
    return str(value).upper()


@attrs.frozen(kw_only=True)
class Options:
    """Options of a test's plugin."""

    host: str = option(help="Where it is.")
    port: int = option(7, help="Its port.", check=_small)
    ratio: float = option(0.5, help="A share.")
    fast: bool = option(False, help="Hurry.")
    lease: float = option(10.0, help="Seconds.", convert=duration, check=_small)
    pause: float | None = option(None, help="Seconds.", convert=duration)
    shout: str = option("A", help="Loud.", convert=_upper)
    names: tuple[str, ...] = option((), help="Several.")
    password: Secret = option(Secret(""), help="Hidden.")
    token: Secret | None = option(None, help="Hidden.")
    pin: Secret = option(Secret(""), help="Hidden.", convert=lambda value: Secret(int(value)))
    secret_word: str = option("", help="Hidden by its name.", check=lambda value: "it's wrong" if value else None)
    anything: Any = option(None, help="Whatever.")


def build(**given: Any) -> Options:
    """Return the options of broker ``acme`` on a host."""
    return build_options("broker 'acme'", Options, {"host": "h", **given})


def refusal(**given: Any) -> str:
    """Return the text of the error that options are refused with."""
    with pytest.raises(BadOption) as caught:
        build(**given)
    return str(caught.value)


# --- durations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0),
        (2, 2.0),
        (0.25, 0.25),
        ("3", 3.0),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("2d", 172_800.0),
        (datetime.timedelta(minutes=1, milliseconds=5), 60.005),
        (None, None),
    ],
)
def test_durations_are_numbers_text_or_timedeltas(written: Any, seconds: float | None) -> None:
    """All ways to write a duration come to seconds; None stays None."""
    assert duration(written) == seconds


@pytest.mark.parametrize("written", ["", "soon", "5 parsecs", "1h30", "m5", "1.s", "1 5s", True, b"5", [5], object])
def test_what_is_no_duration_is_refused(written: Any) -> None:
    """Text that isn't wholly understood, and other types, bool among them, are errors that show how to write one."""
    with pytest.raises(ValueError, match="is no duration; give seconds") as caught:
        duration(written)

    assert repr(written) in str(caught.value)


@pytest.mark.parametrize(
    "written", [-1, -0.001, "-1", math.nan, math.inf, 10**400, "nan", "inf", datetime.timedelta(seconds=-1)]
)
def test_durations_are_finite_and_not_negative(written: Any) -> None:
    """Negative ones, nan and infinity are no waiting times."""
    with pytest.raises(ValueError, match="is no duration of 0 seconds or more$"):
        duration(written)


@pytest.mark.parametrize(
    "written", [100 * 366 * 86_400, 1e20, "200000000000d", "1e18", datetime.timedelta(days=40_000)]
)
def test_durations_have_a_longest(written: Any) -> None:
    """What is over a hundred years is a slip of the pen, and more than clocks and databases can add."""
    with pytest.raises(ValueError, match="is longer than 100 years, the longest duration there is$"):
        duration(written)

    assert duration("36500d") == 36_500 * 86_400


# --- types and conversions --------------------------------------------------------------------------------------


def test_values_of_their_type_are_taken_and_others_defaulted() -> None:
    """What isn't given has its default; the result is frozen."""
    options = build(port=3, names=("a", "b"), anything={"x": 1}, pause="1m", shout="b")

    assert (options.host, options.port, options.ratio, options.fast) == ("h", 3, 0.5, False)
    assert (options.names, options.anything, options.pause, options.shout) == (("a", "b"), {"x": 1}, 60.0, "B")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.port = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("port", "5", 5), ("ratio", "0.25", 0.25), ("fast", "true", True), ("fast", "0", False), ("host", "7", "7")],
)
def test_text_is_read_as_the_options_type(name: str, text: str, value: Any) -> None:
    """The environment has nothing but text; a number in it is a number where the option is one."""
    built = getattr(build(**{name: text}), name)

    assert (built, type(built)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"port": 1.5}, "port=1.5 can't be used: Expected `int`, got `float`"),
        ({"port": True}, "port=True can't be used: Expected `int`, got `bool`"),
        ({"port": "x1"}, "port='x1' can't be used: Expected `int`, got `str`"),
        ({"port": None}, "port=None can't be used: Expected `int`, got `null`"),
        ({"port": 10}, "port=10 can't be used: it must be under 10"),
        ({"host": 5}, "host=5 can't be used: Expected `str`, got `int`"),
        ({"fast": "perhaps"}, "fast='perhaps' can't be used: Expected `bool`, got `str`"),
        ({"names": ("a", 1)}, "names=('a', 1) can't be used: Expected `str`, got `int` - at `$[1]`"),
        ({"shout": "lower"}, "shout='lower' can't be used: 'lower' isn't loud"),
        ({"lease": None}, "lease=None can't be used: it must not be None"),
        ({"lease": "11s"}, "lease='11s' can't be used: it must be under 10"),
        ({"host": "x://u:hunter2@h", "port": 99}, "port=99 can't be used: it must be under 10"),
    ],
)
def test_values_that_cant_be_used_say_why(given: dict[str, Any], text: str) -> None:
    """The error names owner, option, value and reason."""
    assert refusal(**given) == f"broker 'acme': option {text}"


def test_an_unknown_option_is_refused() -> None:
    """The error guesses what was meant, else it lists what there is."""
    assert refusal(prot=1) == "broker 'acme' has no option 'prot'. Did you mean 'port'?"
    assert refusal(zzz=1) == (
        "broker 'acme' has no option 'zzz'.\n  Its options: anything, fast, host, lease, names, password, pause, "
        "pin, port, ratio, secret_word, shout, token"
    )


def test_a_missing_option_is_named_with_its_meaning() -> None:
    """An option without a default has to be given."""
    with pytest.raises(BadOption) as caught:
        build_options("broker 'acme'", Options, {})

    assert str(caught.value) == "broker 'acme' needs the option 'host': Where it is."


# --- secrets -------------------------------------------------------------------------------------------------


def test_a_secret_never_shows_itself() -> None:
    """Repr, str, formats and the options around it are masked; only ``reveal`` gives the text, also of a copy."""
    secret = Secret("hunter2")

    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>20}", f"{secret!r}", f"{secret!s}", repr([secret])]
    assert not [text for text in shown if "hunter2" in text]
    assert "hunter2" not in repr(build(password="hunter2", token="hunter2"))
    for same in (secret, pickle.loads(pickle.dumps(secret)), copy.deepcopy(secret)):
        assert (type(same), same.reveal(), type(same.reveal())) == (Secret, "hunter2", str)


def test_secrets_are_made_of_text_alone() -> None:
    """Text from anywhere becomes the option's Secret, a Secret stays one, and None is None where that is allowed."""
    for given in ("hunter2", Secret("hunter2")):
        options = build(password=given, token=given)
        assert type(options.password) is type(options.token) is Secret
        assert options.password.reveal() == options.token.reveal() == "hunter2"
    assert build(token=None).token is None
    assert refusal(password=None).endswith("can't be used: Expected `str`, got `null`")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"password": 4711}, "password='***' can't be used: Expected `str`, got `int`"),
        ({"token": [4711]}, "token='***' can't be used: Expected `str`, got `array`"),
        (
            {"pin": "hunter2-4711"},
            "pin='***' can't be used: invalid literal for int() with base 10: '***'",
        ),
        ({"secret_word": "hunter2-4711"}, "secret_word='***' can't be used: it's wrong"),
        ({"port": "x://u:4711@h"}, "port='x://u:***@h' can't be used: Expected `int`, got `str`"),
        (
            {"port": {"api_key": "4711", "url": "x://u:4711@h"}},
            "port={'api_key': '***', 'url': 'x://u:***@h'} can't be used: Expected `int`, got `object`",
        ),
    ],
)
def test_errors_dont_show_secrets(given: dict[str, Any], text: str) -> None:
    """A secret of the wrong type or value isn't in the error, nor in the errors that a traceback shows with it."""
    with pytest.raises(BadOption) as caught:
        build(**given)

    assert str(caught.value) == f"broker 'acme': option {text}"
    assert "4711" not in f"{caught.value.__cause__} {caught.value.__context__}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user:hunter2@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("amqp://user@host/vhost", "amqp://user@host/vhost"),
        ("redis://u:hun@ter2@host", "redis://u:***@host"),
        ("redis://u:hun/ter2@host/0", "redis://u:***@host/0"),
        ("redis://u:hun?t#er2@host", "redis://u:***@host"),
        ("redis://u:12/hunter2@host", "redis://u:***@host"),
        ("redis://u:hunter2@[::1]:6379", "redis://u:***@[::1]:6379"),
        ("redis://[hunter2", "redis://***"),
        ("x://h/?password=hunter2&db=1&API_Token=hunter2&flag", "x://h/?password=***&db=1&API_Token=***&flag"),
        ("sqlite:///tmp/a b.db", "sqlite:///tmp/a b.db"),
        ("memory://", "memory://"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, shown: str) -> None:
    """Passwords are masked, escaped or not, and query values whose names sound secret; the rest stays readable."""
    assert mask_url(url) == shown

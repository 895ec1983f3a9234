"""Codec ``json``: what comes back as itself, what is refused at push, and bodies that can't be read."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import math
import pathlib
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from boost_core.builtin.json_codec import JsonCodec
from boost_core.errors import BadArgument, BadOption, DecodeError
from boost_core.types import ENVELOPE_VERSION, DeadLetter, Failure, Message
from hypothesis import given
from hypothesis import strategies as st

if typing.TYPE_CHECKING:
    from fractions import Fraction

CODEC = JsonCodec(None)


class Colour(enum.Enum):
    """A plain Enum."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An Enum that is an int."""

    LOW = 1


class Point(NamedTuple):
    """A NamedTuple."""

    x: int
    y: float


class Choice(TypedDict, total=False):
    """A TypedDict."""

    colour: Colour
    note: str


@dataclasses.dataclass
class Photo:
    """A dataclass that holds itself."""

    path: pathlib.Path
    taken: datetime.datetime | None = None
    similar: list[Photo] = dataclasses.field(default_factory=list)


@attrs.frozen
class Size:
    """An attrs class."""

    width: int
    tags: frozenset[str] = frozenset()


class Job(msgspec.Struct):
    """A Struct."""

    pair: tuple[int, str]
    price: decimal.Decimal


T = TypeVar("T")


@dataclasses.dataclass
class Box(Generic[T]):
    """A generic dataclass."""

    content: T


@dataclasses.dataclass
class Picky:
    """A dataclass whose own check fails with an error of its own."""

    count: int

    def __post_init__(self) -> None:
        """Refuse 13."""
        if self.count == 13:
            raise KeyError(self.count)


def spoilt() -> Picky:
    """Return an object that its own class wouldn't make."""
    picky = Picky(1)
    picky.count = 13
    return picky


class Label(str):
    """A str of another kind."""

    __slots__ = ()


class Connection:
    """A class that no codec knows."""


UTC = datetime.UTC
ODD = datetime.timezone(datetime.timedelta(hours=2, minutes=27, seconds=16))  # RFC 3339 has no seconds in offsets
NOW = datetime.datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


def message_of(args: bytes, kwargs: bytes = b"{}") -> Message:
    """Return a message with these encoded arguments, as it comes out of an envelope."""
    sent = Message(v=1, id="1", task="job", at=1, args=msgspec.Raw(args), kwargs=msgspec.Raw(kwargs))
    return CODEC.decode_message(CODEC.encode_message(sent))


def round_trip(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Push arguments through binder and envelope, and return what the function would get."""
    binder = CODEC.bind("job", function)
    back_args, back_kwargs = binder.decode(message_of(*binder.encode(args, kwargs)))
    return tuple(back_args), dict(back_kwargs)


def taking(annotation: Any, **defaults: Any) -> Callable[..., Any]:
    """Return a function whose parameter ``p`` (and result) is annotated so."""

    def function(p: Any) -> Any:
        return p

    function.__annotations__ = {"p": annotation, "return": annotation}
    if defaults:
        function.__defaults__ = (defaults["default"],)
    return function


def bare(p):  # type: ignore[no-untyped-def]
    """Have a parameter without an annotation."""
    return p


def nested(levels: int) -> list[Any]:
    """Return lists in lists, so many levels."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return the text of the BadArgument that a push raises."""
    with pytest.raises(BadArgument) as caught:
        CODEC.bind("job", function).encode(args, kwargs)
    return str(caught.value)


ANNOTATED: list[tuple[Any, Any]] = [
    (int, 3),
    (int, -(10**40)),
    (bool, True),
    (float, 2.5),
    (float, -0.0),
    (str, "späß \x00 😀"),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"\x00")),
    (None, None),
    (int | None, None),
    (int | str, "3"),
    (int | float, 3),
    (datetime.datetime, NOW),
    (datetime.datetime, NOW.replace(tzinfo=None)),
    (datetime.datetime, NOW.astimezone(datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)))),
    (datetime.date, datetime.date(1, 1, 1)),
    (datetime.time, datetime.time(1, 2, 3, 4)),
    (datetime.timedelta, datetime.timedelta(days=-1, microseconds=1)),
    (datetime.timedelta, datetime.timedelta.max),
    (decimal.Decimal, decimal.Decimal("1.500")),
    (uuid.UUID, uuid.UUID(int=7)),
    (Colour, Colour.BLUE),
    (Level, Level.LOW),
    (Literal["a", 1], 1),
    (pathlib.Path, pathlib.Path("/a b/ü")),
    (pathlib.PurePosixPath, pathlib.PurePosixPath("a")),
    (pathlib.Path | None, pathlib.Path("a")),
    (list[pathlib.Path], [pathlib.Path("a"), pathlib.Path("b")]),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (list, [1, "a", None]),
    (dict[int, Colour], {1: Colour.RED}),
    (dict[uuid.UUID, list[datetime.date]], {uuid.UUID(int=1): [datetime.date(2026, 1, 1)]}),
    (Mapping[str, Sequence[int]], {"a": [1]}),
    (Point, Point(1, 2.0)),
    (Choice, {"colour": Colour.RED, "note": "x"}),
    (Photo, Photo(pathlib.Path("a"), NOW, [Photo(pathlib.Path("b"))])),
    (list[Photo | None], [None, Photo(pathlib.Path("a"))]),
    (Size, Size(3, frozenset({"a"}))),
    (Job, Job((1, "a"), decimal.Decimal("0.1"))),
    (Box[Size], Box(Size(1))),
    (typing.Annotated[int, msgspec.Meta(ge=3)], 3),
    (Any, {"a": [1, None]}),
    (object, "x"),
    (dict[str, object], {"a": [1]}),
]


class TestAnnotated:
    """Parameters with annotations."""

    @pytest.mark.parametrize(("annotation", "value"), ANNOTATED, ids=lambda item: str(item)[:40])
    def test_annotated_values_come_back_as_themselves(self, annotation: Any, value: Any) -> None:
        """A value arrives equal and of the same type, as argument, keyword and result."""
        function = taking(annotation)
        binder = CODEC.bind("job", function)

        for back in (
            round_trip(function, value)[0][0],
            round_trip(function, p=value)[1]["p"],
            binder.decode_value(binder.encode_value(value)),
        ):
            assert back == value
            assert type(back) is type(value)

    def test_nested_types_are_kept(self) -> None:
        """Values inside containers and objects keep their types too."""
        (photo,), _ = round_trip(taking(Photo), Photo(pathlib.Path("a"), None, [Photo(pathlib.Path("b"))]))

        assert type(photo.similar[0]) is Photo
        assert isinstance(photo.similar[0].path, pathlib.Path)

    def test_negative_zero_keeps_its_sign(self) -> None:
        """Floats come back to the last bit."""
        assert math.copysign(1, round_trip(taking(float), -0.0)[0][0]) == -1

    def test_int_is_a_float(self) -> None:
        """An int for a float parameter arrives as the equal float, and is refused where there is none."""
        assert repr(round_trip(taking(float), 3)[0][0]) == "3.0"
        assert "would come back as float" in refusal(taking(float), 2**53 + 1)

    @pytest.mark.parametrize(
        ("annotation", "value", "problem"),
        [
            (int, "3", "value doesn't fit its annotation: Expected `int`, got `str`"),
            (int, True, "value doesn't fit its annotation: Expected `int`, got `bool`"),
            (int, 3.0, "value doesn't fit its annotation: Expected `int`, got `float`"),
            (str, b"a", "value is of type bytes, but would come back as str"),
            (str, Label("a"), "value can't be encoded: type Label has no form in JSON"),
            (bytes, bytearray(b"a"), "value is of type bytearray, but would come back as bytes"),
            (pathlib.Path, "a.png", "value is of type str, but would come back as PosixPath"),
            (Colour, "red", "value is of type str, but would come back as Colour"),
            (Size, {"width": 1}, "value is of type dict, but would come back as Size"),
            (Sequence[int], (1, 2), "value is of type tuple, but would come back as list"),
            (list[Any], [1, (2,)], "value[1] is of type tuple, but would come back as list"),
            (tuple, ([1], (2,)), "value[1] is of type tuple, but would come back as list"),
            (dict, {1: 2}, "value has keys that would come back changed or not at all"),
            (dict[float, int], {1: 2}, "value has keys that would come back changed or not at all"),
            (dict[str, int], {"a": "b"}, "value doesn't fit its annotation: Expected `int`, got `str` at `value[...]`"),
            (Choice, {"other": 1}, "value has keys that would come back changed or not at all"),
            (Photo, Photo("a"), "value.path is of type str, but would come back as PosixPath"),  # type: ignore[arg-type]
            (Box[Any], Box(Box((1,))), "value.content is of type Box, but would come back as dict"),
            (set[Any], {1, b"a"}, "value is of type set and would come back changed"),
            (set[int], {True}, "value doesn't fit its annotation: Expected `int`, got `bool` at `value[0]`"),
            (Literal["a"], "b", "value doesn't fit its annotation: Invalid enum value 'b'"),
            (typing.Annotated[int, msgspec.Meta(ge=3)], 2, "value doesn't fit its annotation: Expected `int` >= 3"),
            (decimal.Decimal, decimal.Decimal("nan"), "value is of type Decimal and would come back changed"),
            (decimal.Decimal, decimal.Decimal("snan"), "value is of type Decimal and would come back changed"),
            (Picky, spoilt(), "value doesn't fit its annotation: 13"),
            (datetime.datetime, NOW.replace(tzinfo=ODD), "value is of type datetime and would come back changed"),
        ],
    )
    def test_values_that_would_change_are_refused(self, annotation: Any, value: Any, problem: str) -> None:
        """A value that doesn't fit its annotation, or would arrive as another, is refused at push by name and place."""
        assert refusal(taking(annotation), value).startswith(f"task 'job', argument 'p': {problem}")

    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize(
        ("annotation", "wrap", "place"),
        [
            (float, lambda x: x, "value"),
            (float | None, lambda x: x, "value"),
            (list[float], lambda x: [1.0, x], "value[1]"),
            (list[float | None], lambda x: [x], "value[0]"),
            (dict[str, list[Any]], lambda x: {"a": [x]}, "value['a'][0]"),
            (Point, lambda x: Point(1, x), "value[1]"),
            (Box[float | None], Box, "value.content"),
            (set[Any], lambda x: {x}, "value"),
            (Any, lambda x: {"a": (1, x)} and [x], "value[0]"),
        ],
    )
    def test_numbers_that_json_lacks_are_named(
        self, annotation: Any, wrap: Callable[[float], Any], place: str, number: float
    ) -> None:
        """Nan and infinity are refused at any depth, by their place, never sent as null."""
        assert refusal(taking(annotation), wrap(number)) == (
            f"task 'job', argument 'p': {place} is {number}, a number that JSON doesn't have; give None or text instead."
        )


class TestPlain:
    """Parameters without annotations."""

    @pytest.mark.parametrize(
        "value",
        [None, True, 0, 10**40, 1.5, -0.0, "", "ü\x00", [], {}, [1, [True, None, {"a": 1.5}]], {"": {"b": []}}],
    )
    def test_plain_values_come_back_as_themselves(self, value: Any) -> None:
        """None, bool, int, float, str, list and str-keyed dict need no annotation."""
        (back,), _ = round_trip(bare, value)

        assert repr(back) == repr(value)

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ((1, 2), "value is of type tuple and would come back as list; annotate it, or give a list."),
            (
                [0, {"a": (1,)}],
                "value[1]['a'] is of type tuple and would come back as list; annotate it, or give a list.",
            ),
            (Point(1, 2), "value is of type Point and would come back as list; annotate it, or give a list."),
            (Label("x"), "value is of type Label and would come back as str; give str(...)."),
            (Level.LOW, "value is of type Level; annotate it as Level, or give its .value."),
            (pathlib.PurePosixPath("a"), "value is of type PurePosixPath; annotate it as Path, or give str(path)."),
            ([math.nan], "value[0] is nan, a number that JSON doesn't have; give None or text instead."),
            ("\ud800", "value contains text with a lone surrogate ('\\ud800'), which is not valid Unicode."),
            (["\ud800"], "value contains text with a lone surrogate ('\\ud800'), which is not valid Unicode."),
            (
                {1: 2},
                (
                    "value has a key of type int; without an annotation keys are str: "
                    "annotate it (such as dict[int, str]), or give str keys."
                ),
            ),
            (
                {1, 2},
                (
                    "value is of type set; without an annotation only None, bool, int, float, str, list and dict "
                    "are carried: annotate it with its type, or convert it."
                ),
            ),
        ],
    )
    def test_what_json_would_change_is_refused(self, value: Any, problem: str) -> None:
        """Everything else is refused at push, with its place and the remedy."""
        assert refusal(bare, value) == f"task 'job', argument 'p': {problem}"

    @pytest.mark.parametrize("value", [b"x", Size(1), object(), NOW, decimal.Decimal(1), {Label("a"): 1}, range(3)])
    def test_other_types_are_refused(self, value: Any) -> None:
        """No object slips through without an annotation, and none shows its content in the error."""
        assert "of type" in refusal(bare, value)


class TestLimits:
    """Depth, recursion, and numbers beyond text."""

    @pytest.mark.parametrize("function", [bare, taking(Any), taking(list), taking(list[Any])])
    def test_depth_is_bounded(self, function: Callable[..., Any]) -> None:
        """64 levels are carried; 65, five thousand, and values that contain themselves are refused."""
        endless: list[Any] = []
        endless.append(endless)

        assert round_trip(function, nested(64))[0] == (nested(64),)
        for value in (nested(65), nested(5_000), endless):
            assert refusal(function, value) == (
                "task 'job', argument 'p': value is nested deeper than 64 levels, or contains itself."
            )

    def test_object_that_holds_itself_is_refused(self) -> None:
        """A dataclass in its own list is a BadArgument, not a crash."""
        photo = Photo(pathlib.Path("a"))
        photo.similar.append(photo)

        assert "contains itself" in refusal(taking(Photo), photo)

    @pytest.mark.parametrize("function", [bare, taking(int)])
    def test_integers_beyond_text_are_refused(self, function: Callable[..., Any]) -> None:
        """An int of more digits than Python converts is refused; the longest it does comes back exactly."""
        longest = 10**4299

        assert round_trip(function, longest)[0] == (longest,)
        assert "can't be encoded: Exceeds the limit" in refusal(function, longest * 10)


class TestSignature:
    """Which calls fit, and how arguments are named."""

    @staticmethod
    def many(first, /, second: int, *rest: float, key: str = "k", **others: int) -> None:  # type: ignore[no-untyped-def]
        """Have parameters of every kind."""

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((1, 2), {}),
            ((1,), {"second": 2}),
            ((1, 2, 3.5, 4.0), {}),
            ((1, 2, 3.5), {"key": "x", "a": 1}),
            ((1, 2), {"first": 3}),
            ((1, 2), {"rest": 3, "others": 4}),
        ],
    )
    def test_calls_arrive_as_they_were_made(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Positional, keyword and variadic arguments arrive in the places they were given in."""
        assert round_trip(self.many, *args, **kwargs) == (args, kwargs)

    def test_defaults_are_the_workers(self) -> None:
        """What the caller leaves out isn't sent; a default of None may be given in spite of the annotation."""

        def resize(path: str, width: int = None, height: int = 7) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

        assert round_trip(resize, "a") == (("a",), {})
        assert round_trip(resize, "a", None) == (("a", None), {})
        assert round_trip(resize, "a", 1, 2) == (("a", 1, 2), {})
        assert round_trip(resize, "a", height=2) == (("a",), {"height": 2})

    @pytest.mark.parametrize(
        ("args", "kwargs", "problem"),
        [
            ((), {}, "missing a required argument: 'path'"),
            (("a",), {}, "missing a required argument: 'width'"),
            (("a", 1, 2), {}, "too many positional arguments"),
            ((), {"path": "a"}, "missing a required argument: 'width'"),
            (("a",), {"path": "b"}, "multiple values for argument 'path'"),
            (("a", 1), {"path": "b"}, "multiple values for argument 'path'"),
            (("a", 1), {"height": 1}, "got an unexpected keyword argument 'height'"),
        ],
    )
    def test_calls_that_do_not_fit_are_type_errors(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], problem: str
    ) -> None:
        """A call that doesn't fit the function is a TypeError in Python's words, at push; at the worker a DecodeError."""

        def resize(path: str, width: int) -> None: ...

        binder = CODEC.bind("resize", resize)
        with pytest.raises(TypeError) as caught:
            binder.encode(args, kwargs)
        assert str(caught.value) == f"resize() {problem}"

        sent = message_of(msgspec.json.encode(args), msgspec.json.encode(kwargs))
        with pytest.raises(DecodeError) as undecodable:
            binder.decode(sent)
        assert str(undecodable.value) == (
            f"task 'resize': the message's arguments don't fit the function: resize() {problem}"
        )

    @pytest.mark.parametrize(
        ("args", "kwargs", "name"),
        [
            ((object(), 2), {}, "first"),
            ((1, "2"), {}, "second"),
            ((1, 2, 3.0, math.nan), {}, "rest[1]"),
            ((1, 2), {"key": 3}, "key"),
            ((1, 2), {"other": "3"}, "other"),
            ((1, 2, 3.0, "\ud800"), {}, "rest[1]"),
        ],
    )
    def test_bad_arguments_are_named(self, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
        """The error names the parameter; an extra one by its position in *args, or by its keyword."""
        assert refusal(self.many, *args, **kwargs).startswith(f"task 'job', argument {name!r}: value")

    def test_text_beyond_unicode_is_named_among_good_ones(self) -> None:
        """Where only the encoder notices, the parameter is named all the same."""

        def rename(old: str, new: str) -> None: ...

        assert refusal(rename, "a", "\udcff").startswith("task 'job', argument 'new': value contains text")

    def test_wrapped_and_partial_functions_are_seen_through(self) -> None:
        """Annotations are read off what a decorator or a partial wraps."""

        @functools.wraps(TestSignature.photo)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return TestSignature.photo(*args, **kwargs)

        photo = Photo(pathlib.Path("a"))
        for function in (wrapper, functools.partial(TestSignature.photo)):
            assert round_trip(function, photo)[0] == (photo,)

    @staticmethod
    def photo(p: Photo) -> None:
        """Take a Photo."""

    def test_class_instances_with_call_are_functions(self) -> None:
        """An object's own __call__ is bound like a function."""

        class Resizer:
            def __call__(self, p: Photo) -> None: ...

        photo = Photo(pathlib.Path("a"))
        assert round_trip(Resizer(), photo)[0] == (photo,)


def hidden(fraction: Fraction) -> None:
    """Have an annotation that only type checkers can see."""


class TestBind:
    """Annotations that can't be used."""

    @pytest.mark.parametrize(
        "annotation",
        [Connection, list[Connection], Callable[[], None], type[int], Box[Connection], pathlib.Path | str, str | bytes],
    )
    def test_impossible_annotations_are_refused(self, annotation: Any) -> None:
        """An annotation that JSON has no form for is a BadOption naming task, parameter, annotation and remedy."""
        with pytest.raises(
            BadOption, match="task 'job': parameter 'p' is annotated .* which can't be used: .*\n  Annotate"
        ):
            CODEC.bind("job", taking(annotation))

    def test_unresolvable_annotation_is_refused(self) -> None:
        """A name that exists only for type checkers is a BadOption that says where to import it."""
        with pytest.raises(BadOption) as caught:
            CODEC.bind("job", hidden)

        assert str(caught.value) == (
            "task 'job': parameter 'fraction' is annotated Fraction, which can't be used: name 'Fraction' is not defined\n"
            "  Import the name where the annotation can see it: at module level, not below `if TYPE_CHECKING:`."
        )


class TestResults:
    """Values on their way back."""

    @pytest.mark.parametrize("function", [bare, taking(None), taking(int | None), taking(NoReturn)])
    def test_none_is_null(self, function: Callable[..., Any]) -> None:
        """None is carried wherever the annotation, or its absence, allows it."""
        binder = CODEC.bind("job", function)

        assert binder.encode_value(None) == b"null"
        assert binder.decode_value(b"null") is None

    async def coroutine(self) -> set[int]:
        """Return a set, later."""
        return set()

    def test_coroutines_results_are_what_they_return(self) -> None:
        """An async function's return annotation is that of the awaited value."""
        binder = CODEC.bind("job", self.coroutine)

        assert binder.decode_value(binder.encode_value({1})) == {1}

    @pytest.mark.parametrize(
        ("function", "value", "problem"),
        [
            (taking(int), "x", "value doesn't fit its annotation: Expected `int`, got `str`."),
            (taking(int), None, "value doesn't fit its annotation: Expected `int`, got `null`."),
            (bare, (1,), "value is of type tuple and would come back as list; annotate it, or give a list."),
            (bare, [math.inf], "value[0] is inf, a number that JSON doesn't have; give None or text instead."),
            (bare, "\ud800", "value contains text with a lone surrogate ('\\ud800'), which is not valid Unicode."),
            (bare, nested(65), "value is nested deeper than 64 levels, or contains itself."),
        ],
    )
    def test_results_that_would_change_are_type_errors(
        self, function: Callable[..., Any], value: Any, problem: str
    ) -> None:
        """A result that can't be carried is a TypeError that names the return value."""
        with pytest.raises(TypeError) as caught:
            CODEC.bind("job", function).encode_value(value)

        assert str(caught.value) == f"task 'job', return value: {problem}"

    def test_impossible_return_annotation_matters_only_for_results(self) -> None:
        """A function may return what JSON can't carry, until a result is to be stored."""

        def connect(host: str) -> Connection: ...  # type: ignore[empty-body]

        binder = CODEC.bind("job", connect)
        assert binder.encode(("a",), {}) == (b'["a"]', b"{}")
        with pytest.raises(TypeError, match=r"return value: value is annotated .*Connection, which can't be carried"):
            binder.encode_value(None)

    @pytest.mark.parametrize("data", [b"", b"{", b'"x"', b"\xff", b"[" * 100_000])
    def test_unreadable_results_are_decode_errors(self, data: bytes) -> None:
        """Bytes that are no such result raise DecodeError."""
        with pytest.raises(DecodeError, match="task 'job', return value: "):
            CODEC.bind("job", taking(int)).decode_value(data)


class TestIncoming:
    """Arguments of messages that this worker didn't write."""

    def test_wrong_type_names_the_argument(self) -> None:
        """A message of an older publisher whose argument doesn't fit is a DecodeError naming task and argument."""

        def resize(path: str, width: int) -> None: ...

        with pytest.raises(DecodeError) as caught:
            CODEC.bind("resize", resize).decode(message_of(b'["a", "200"]'))

        assert str(caught.value) == "task 'resize', argument 'width': Expected `int`, got `str`"

    @pytest.mark.parametrize("args", [b"1", b"{}", b'["\xff"]', b"[" * 200_000 + b"]" * 200_000, b"[1e999]", b"[13]"])
    @pytest.mark.parametrize("function", [bare, taking(Picky), taking(list)])
    def test_unreadable_arguments_are_decode_errors(self, function: Callable[..., Any], args: bytes) -> None:
        """Arguments that can't be read raise DecodeError, whatever is wrong with them."""
        message = Message(v=1, id="1", task="job", at=1, args=msgspec.Raw(args))
        if function is bare and args == b"[13]":
            assert list(CODEC.bind("job", function).decode(message)[0]) == [13]
            return
        with pytest.raises(DecodeError):
            CODEC.bind("job", function).decode(message)


FULL = Message(
    v=ENVELOPE_VERSION,
    id="abc",
    task="tâche",
    at=1_800_000_000_000_000,
    args=msgspec.Raw(b'["a",200]'),
    kwargs=msgspec.Raw(b'{"k":null}'),
    attempt=3,
    requeue=2,
    parked=1,
    priority=9,
    not_before=5,
    expires_at=6,
    root="r",
    parent="p",
    trace={"traceparent": "00-1"},
    options={"timeout": 3.5},
    failures=(Failure(attempt=1, at=4, type="ValueError", message="no"),),
)


class TestEnvelope:
    """Messages and dead letters."""

    def test_message_comes_back_whole(self) -> None:
        """Every field of an envelope survives, its arguments still encoded."""
        back = CODEC.decode_message(CODEC.encode_message(FULL))

        assert back == FULL
        assert isinstance(back.args, msgspec.Raw)

    def test_dead_letter_comes_back_whole(self) -> None:
        """Every field of a dead letter survives, its original bytes too."""
        letter = DeadLetter(v=1, id="1", queue="q", at=1, reason="failed", failures=FULL.failures, body=b"\x00\xff")

        assert CODEC.decode_dead(CODEC.encode_dead(letter)) == letter

    def test_buffers_may_be_reused(self) -> None:
        """A message decoded from a broker's buffer doesn't change when the buffer does, and doesn't pin it."""
        buffer = bytearray(CODEC.encode_message(FULL))
        with memoryview(buffer) as view:
            back = CODEC.decode_message(view)
        buffer[:] = bytes(len(buffer))
        buffer.clear()  # raises BufferError while anything still looks into it

        assert back == FULL

    @pytest.mark.parametrize("decode", [CODEC.decode_message, CODEC.decode_dead])
    @pytest.mark.parametrize(
        "body",
        [
            b'{"v":2,"id":"1","task":"t","queue":"q","reason":"r","at":1}',
            b'{"v":2}',
            b'{"id":7,"v":2,"args":"new form"}',
        ],
    )
    def test_newer_version_is_known_as_such(self, decode: Callable[[bytes], object], body: bytes) -> None:
        """A later version is named with both versions, whatever else has changed in it."""
        with pytest.raises(DecodeError, match="is of version 2; this worker reads up to version 1") as caught:
            decode(body)

        assert caught.value.newer

    @pytest.mark.parametrize("decode", [CODEC.decode_message, CODEC.decode_dead])
    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"null", b"[]", b"{}", b"\xff", b"{", b'{"v":"1"}', b'{"v":true}', b'{"v":1e999}'),
            *(
                b'{"v":0,"id":"1","task":"t","queue":"q","reason":"r","at":1}',
                b'{"v":-1}',
                b'{"v":' + b"9" * 5_000 + b"}",
            ),
            *(b'{"v":1,"id":"1","at":1}', b'{"v":1,"id":1,"task":"t","queue":"q","reason":"r","at":1}'),
            *(b"[" * 1_000_000, b'{"v":1,"args":' + b"[" * 1_000_000, b'{"a":' * 100_000),
            b'{"v":1,"id":"1","task":"t","at":1,"options":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_001,
        ],
        ids=lambda body: repr(body[:40]),
    )
    def test_other_bodies_are_decode_errors(self, decode: Callable[[bytes], object], body: bytes) -> None:
        """What is no envelope raises DecodeError, however broken, deep or large."""
        with pytest.raises(DecodeError, match=r"the body is no (message|dead letter) of boost: ") as caught:
            decode(body)

        assert not caught.value.newer


# --- properties ---------------------------------------------------------------------------------------

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
anything = st.recursive(
    plain_values | st.floats() | st.binary() | st.sampled_from([Label("x"), Level.LOW, NOW, Point(1, 2.0)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=10,
)


def exact(value: Any) -> Any:
    """Return a form in which values are equal only if their types are, at any depth."""
    if isinstance(value, (list, tuple)):
        return type(value), [exact(item) for item in value]
    if isinstance(value, dict):
        return type(value), [(exact(key), exact(item)) for key, item in value.items()]
    return type(value), repr(value)


@given(plain_values, plain_values)
def test_any_plain_value_comes_back(positional: Any, keyword: Any) -> None:
    """Whatever the plain rules allow arrives as it was sent."""

    def job(a, *, b):  # type: ignore[no-untyped-def]
        pass

    args, kwargs = round_trip(job, positional, b=keyword)

    assert exact((args[0], kwargs["b"])) == exact((positional, keyword))


@pytest.mark.parametrize("function", [bare, taking(list[Any]), taking(dict[str, Any]), taking(tuple[Any, ...])])
@given(value=anything)
def test_nothing_ever_changes_silently(function: Callable[..., Any], value: Any) -> None:
    """Any value either arrives exactly as it was, or is refused at push."""
    binder = CODEC.bind("job", function)
    try:
        sent = binder.encode((value,), {})
    except BadArgument:
        return

    assert exact(binder.decode(message_of(*sent))[0][0]) == exact(value)


offsets = st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))


@given(
    st.builds(Size, st.integers(), st.frozensets(st.text())),
    st.datetimes(timezones=st.none() | offsets),
    st.timedeltas(),
)
def test_any_annotated_value_comes_back(size: Size, moment: datetime.datetime, span: datetime.timedelta) -> None:
    """Objects, moments and spans arrive equal."""

    def job(size: Size, moment: datetime.datetime, span: datetime.timedelta) -> None: ...

    assert round_trip(job, size, moment, span)[0] == (size, moment, span)


small_ints = st.integers(min_value=0, max_value=2**62)
messages = st.builds(
    Message,
    v=st.just(ENVELOPE_VERSION),
    id=st.text(),
    task=st.text(),
    at=small_ints,
    args=st.lists(plain_values, max_size=3).map(lambda value: msgspec.Raw(msgspec.json.encode(value))),
    kwargs=st.dictionaries(st.text(), plain_values, max_size=3).map(
        lambda value: msgspec.Raw(msgspec.json.encode(value))
    ),
    attempt=small_ints,
    priority=small_ints,
    expires_at=st.none() | small_ints,
    options=st.dictionaries(st.text(), plain_values, max_size=3),
    failures=st.lists(
        st.builds(Failure, attempt=small_ints, at=small_ints, type=st.text(), message=st.text()), max_size=2
    ).map(tuple),
)


@given(messages)
def test_any_message_comes_back(message: Message) -> None:
    """Every envelope survives its codec."""
    assert CODEC.decode_message(CODEC.encode_message(message)) == message


@given(st.binary() | st.text().map(str.encode) | plain_values.map(msgspec.json.encode))
def test_any_bytes_give_an_envelope_or_a_decode_error(body: bytes) -> None:
    """No body whatsoever makes decoding raise anything but DecodeError."""
    for decode in (CODEC.decode_message, CODEC.decode_dead):
        with pytest.raises(DecodeError):
            decode(body)


@given(messages, st.data())
def test_damaged_envelopes_decode_or_raise_decode_errors(message: Message, data: st.DataObject) -> None:
    """A body with any bytes overwritten, or cut short, is a message or a DecodeError, and so are its arguments."""
    body = bytearray(CODEC.encode_message(message))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))]) if data.draw(st.booleans()) else bytes(body)
    binder = CODEC.bind("job", TestSignature.many)
    try:
        binder.decode(CODEC.decode_message(cut))
    except DecodeError:
        pass

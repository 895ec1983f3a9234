"""Controls in a chain: the order of layers, what isn't used, and what is refused at assembly."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from boost_core import App, current
from boost_core.errors import BadOption, ControlMismatch, JobFailed, UnsupportedCapability
from boost_core.plugin import (
    PROCEED,
    Around,
    Capability,
    Control,
    ControlContext,
    GateStage,
    Run,
    RunnerCall,
    WrapStage,
    option,
)
from plugged import around, control, options_of, plug, task_in, worlds

USER = WrapStage.USER


def layer(name: str, seen: list[str]) -> Any:
    """Return a closure control that notes its name on the way in and out, in both colours."""

    class Layer(Control):
        def wrap(self, task: Any, nxt: RunnerCall) -> RunnerCall:
            def call(run: Run) -> Any:
                seen.append(name)
                return nxt(run)

            return call

        def wrap_async(self, task: Any, nxt: RunnerCall) -> RunnerCall:
            async def call(run: Run) -> Any:
                seen.append(name)
                return await nxt(run)

            return call

    return Layer


@worlds
def test_wraps_nest_by_stage_and_inside_it_by_reference(app: App, world: str) -> None:
    """TRACE is outermost, then TIMEOUT, CONTEXT, USER; inside a stage before= and after= decide, then the name."""
    seen: list[str] = []
    plug(
        app,
        control("a", layer("user-a", seen), wrap=USER, after=("c",)),
        control("b", layer("user-b", seen), wrap=USER),
        control("c", layer("user-c", seen), wrap=USER, after=("b",)),
        control("d", layer("user-d", seen), wrap=USER, before=("b",)),
        control("e", layer("context", seen), wrap=WrapStage.CONTEXT),
        control("f", layer("timeout", seen), wrap=WrapStage.TIMEOUT),
        control("g", layer("trace", seen), wrap=WrapStage.TRACE),
    )
    job = task_in(app, world, seen.append)
    with app.worker():
        job.push("run").get(timeout=10)

    assert seen == ["trace", "timeout", "context", "user-d", "user-b", "user-c", "user-a", "run"]


@worlds
def test_current_is_known_to_user_controls_and_not_to_outer_ones(app: App, world: str) -> None:
    """Controls of CONTEXT and USER may ask `current`; TRACE and TIMEOUT stand outside of the job's context."""
    known: dict[str, bool] = {}

    def asking(stage: WrapStage) -> Any:
        def body(call: Run) -> Around:
            known[stage.name] = bool(current)
            return (yield PROCEED)

        return control(stage.name.lower() + "-asks", around(body), wrap=stage)

    plug(app, *map(asking, WrapStage))
    job = task_in(app, world, str)
    with app.worker():
        job.push("x").get(timeout=10)

    assert known == {"TRACE": False, "TIMEOUT": False, "CONTEXT": True, "USER": True}


def optional(seen: list[str]) -> Any:
    """Return a control that only takes part where its option ``watched`` is set."""

    class Optional(Control):
        def wrap(self, task: Any, nxt: RunnerCall) -> RunnerCall:
            if not task.overridden and not task.values["watched"]:
                return nxt

            def call(run: Run) -> Any:
                if run.setting("watched"):
                    seen.append(run.message.id)
                return nxt(run)

            return call

    return Optional


def stack_depth(_text: str) -> int:
    """Return how many frames a job runs on."""
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def test_a_control_that_a_task_doesnt_use_isnt_in_its_chain(app: App) -> None:
    """Where wrap returns nxt unchanged no frame is added; a message's own option brings the control in."""
    seen: list[str] = []
    bare = App("bare", broker="memory", store="memory")
    plug(app, control("watch", optional(seen), wrap=USER, options=options_of(watched=(bool, False))))

    def depth(of: App, **own: Any) -> int:
        job = of.tasks.get("job") or task_in(of, "threads", stack_depth)
        with of.worker():
            return (job.options(**own) if own else job).push("x").get(timeout=10)

    assert depth(app) == depth(bare)
    assert seen == []
    assert depth(app, watched=True) == depth(app, watched=False) > depth(app)
    assert len(seen) == 1
    bare.close()


def test_a_closure_that_raises_is_named_and_loses_no_thread(app: App) -> None:
    """A bug in a closure control fails its run like one in a generator; the pool's one thread serves on."""
    threads: set[int] = set()

    class Buggy(Control):
        def wrap(self, task: Any, nxt: RunnerCall) -> RunnerCall:
            def call(run: Run) -> Any:
                if run.message.options:
                    raise KeyboardInterrupt
                return nxt(run)

            return call

    plug(app, control("buggy", Buggy, wrap=USER))
    job = task_in(app, "solo", lambda _text: threads.add(threading.get_ident()))
    with app.worker():
        job.push("x").get(timeout=10)
        with pytest.raises(JobFailed, match=r"control 'buggy' \(acme-controls\) raised: KeyboardInterrupt"):
            job.options(retries=9).push("x").get(timeout=10)
        job.push("x").get(timeout=10)

    assert len(threads) == 1


# --- what is refused at assembly ----------------------------------------------------------------------


class WrapOnly(Control):
    """A control without a form for coroutine functions; it takes part where ``traced`` is set."""

    def wrap(self, task: Any, nxt: RunnerCall) -> RunnerCall:
        """Return a layer of its own where the task wants it."""
        return (lambda run: nxt(run)) if task.values["traced"] else nxt


def test_a_control_for_plain_functions_only_is_refused_on_asyncio(app: App) -> None:
    """A control that has wrap alone and takes part is an error at assembly that names control, task and ways out."""
    plug(app, control("tracer", WrapOnly, wrap=USER, options=options_of(traced=(bool, False))))

    @app.boost("fetch", traced=True)
    async def fetch() -> None: ...

    expected = (
        "control 'tracer' has no form for coroutine functions, but task 'fetch' runs on asyncio.\n"
        "  Use another pool, or write the control as a generator: around(call)."
    )
    for assemble in (app.check, app.worker().start):
        with pytest.raises(ControlMismatch) as caught:
            assemble()
        assert str(caught.value) == expected


def test_a_control_for_plain_functions_only_harms_no_coroutine_that_doesnt_use_it(app: App) -> None:
    """A coroutine task that doesn't set the control's option runs, and plain tasks use the control."""
    plug(app, control("tracer", WrapOnly, wrap=USER, options=options_of(traced=(bool, False))))

    @app.boost("fetch", results=True)
    async def fetch() -> str:
        return "fetched"

    @app.boost("plain", results=True, traced=True)
    def plain() -> str:
        return "ran"

    app.check()
    with app.worker():
        assert [fetch.push().get(timeout=10), plain.push().get(timeout=10)] == ["fetched", "ran"]


def test_an_order_relative_to_an_unknown_control_is_refused(app: App) -> None:
    """before= or after= naming what isn't installed is an error at the first use that lists the installed controls."""
    plug(app, control("lost", Control, wrap=USER, after=("ghost",)))

    @app.boost("job")
    def job() -> None: ...

    with pytest.raises(ControlMismatch) as caught:
        job.push()

    assert str(caught.value) == (
        "control 'lost' orders itself relative to 'ghost', which is no installed control.\n"
        "  Installed controls: lost, result, retry, timeout"
    )


@pytest.mark.parametrize("stage", [{"wrap": USER}, {"gate": GateStage.RATE}])
def test_circular_orders_are_refused(app: App, stage: dict[str, Any]) -> None:
    """Controls of one stage that stand before each other are an error at assembly that shows the circle."""
    plug(
        app,
        control("one", Control, before=("two",), **stage),
        control("two", Control, before=("three",), **stage),
        control("three", Control, before=("one",), **stage),
    )

    @app.boost("job")
    def job() -> None: ...

    for assemble in (app.check, app.worker().start):
        with pytest.raises(ControlMismatch) as caught:
            assemble()
        problem, fix = str(caught.value).splitlines()
        head, _, circle = problem.partition(": ")
        assert head == "controls order themselves in a circle"
        names = circle.split(" > ")
        assert names[0] == names[-1]
        assert set(names) == {"one", "two", "three"}
        assert fix == "  Remove one of their before= or after=."


def test_references_across_stages_make_no_circle(app: App) -> None:
    """An order counts inside one stage only; between stages the stages decide."""
    seen: list[str] = []
    plug(
        app,
        control("one", layer("trace", seen), wrap=WrapStage.TRACE, after=("two",)),
        control("two", layer("user", seen), wrap=USER, after=("one",)),
    )
    job = task_in(app, "threads", str)
    with app.worker():
        job.push("x").get(timeout=10)

    assert seen == ["trace", "user"]


def test_two_controls_that_own_one_option_are_refused(app: App) -> None:
    """An option has one owner; the error names both controls and the option."""
    options = options_of(colour=(str, "red"))
    plug(app, control("paint", Control, options=options), control("print", Control, options=options))

    @app.boost("job")
    def job() -> None: ...

    with pytest.raises(ControlMismatch) as caught:
        app.check()

    assert str(caught.value) == (
        "controls 'paint' and 'print' both declare the task option 'colour'.\n  Uninstall one of them."
    )


# --- options that a control owns ------------------------------------------------------------------------


def _even(value: int) -> str | None:
    return None if value % 2 == 0 else "it must be even"


@attrs.frozen(kw_only=True)
class Width:
    """Options of a test's control: one for messages too, one for the whole task only."""

    width: int = option(2, help="Wide.", check=_even, message=True)
    margin: float = option(0.0, help="Around.")


@pytest.fixture
def wide(app: App) -> App:
    """Return an app whose control ``width`` owns the options width and margin."""
    plug(app, control("width", Control, options=Width))
    return app


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"width": "two"}, "task 'job': option width='two' can't be used: Expected `int`, got `str`"),
        ({"width": 3}, "task 'job': option width=3 can't be used: it must be even"),
        ({"widht": 2}, "a task has no option 'widht'. Did you mean 'width'?"),
    ],
)
def test_bad_options_of_a_control_are_refused(wide: App, given: dict[str, Any], text: str) -> None:
    """An option of the wrong type or value, or misspelt, is an error at the first use; at options(...) at once."""

    @wide.boost("job", **given)
    def job() -> None: ...

    @wide.boost("good", name="job2")
    def good() -> None: ...

    with pytest.raises(BadOption) as caught:
        job.push()
    with pytest.raises(BadOption) as caught_own:
        good.options(**given)

    assert str(caught.value) == text
    assert str(caught_own.value) == text.replace("task 'job'", "task 'job2'")


def test_an_option_of_the_whole_task_cant_be_set_for_a_message(wide: App) -> None:
    """An option that isn't declared for messages is refused by options(...), which lists those that are."""

    @wide.boost("job", margin=1)
    def job() -> None: ...

    with pytest.raises(BadOption) as caught:
        job.options(margin=2)

    assert str(caught.value) == (
        "option 'margin' belongs to the whole task 'job'; a single message can't set it.\n"
        "  A message may set: delay, priority, result_ttl, results, retries, timeout, timeout_grace, width, job_id"
    )


def test_what_a_control_needs_is_checked_for_task_and_message(app: App) -> None:
    """A control says what its values ask of the broker; what that one can't do is refused before anything is sent."""

    class Needy(Control):
        def needs(self, values: Mapping[str, Any]) -> Mapping[Capability, str]:
            return {Capability.FAIR: f"fair={values['fair']}"} if values["fair"] else {}

    plug(app, control("needy", Needy, options=options_of(fair=(bool, False))))

    @app.boost("all", fair=True)
    def whole() -> None: ...

    @app.boost("some")
    def some() -> None: ...

    for name, ask in (("all", whole.push), ("some", lambda: some.options(fair=True))):
        with pytest.raises(UnsupportedCapability) as caught:
            ask()
        assert str(caught.value) == f"task {name!r} asks for fair=True, but broker 'memory' has no capability 'fair'."
    some.push()
    assert some.depth().ready == 1


def test_a_control_stamps_what_its_messages_carry(app: App) -> None:
    """Values of task and message reach the control's stamp at push, and what it writes reaches the worker."""
    made: list[ControlContext] = []

    class Tracing(Control):
        def __init__(self, context: ControlContext) -> None:
            super().__init__(context)
            made.append(context)

        def stamp(self, message: Any, values: Mapping[str, Any]) -> None:
            message.trace = {"tenant": values["tenant"]}

        def around(self, call: Run) -> Around:
            outcome = yield PROCEED
            outcome.value = call.message.trace
            return outcome

    plug(app, control("tracing", Tracing, wrap=USER, options=options_of(tenant=(str, "nobody"))))
    job = task_in(app, "threads", str, tenant="acme")
    with app.worker():
        assert job.push("x").get(timeout=10) == {"tenant": "acme"}
        assert job.options(tenant="other").push("x").get(timeout=10) == {"tenant": "other"}

    assert len(made) == 1

"""Names of queues, tasks and jobs, and the namespace before them."""

from __future__ import annotations

from typing import Any

import pytest
from boost_core import App
from boost_core.errors import BadName


def nothing() -> str:
    """Be a function to declare."""
    return "done"


@pytest.mark.parametrize(
    "name",
    ["a", "orders.eu-1_x", "a/b", "订单", "two words", "naïve", "q" * 180, "订" * 180, "a'b\"c%s{}", "dead", "🎈"],
)
def test_any_readable_text_is_a_queue(app: App, name: str) -> None:
    """Slashes, blanks inside, Chinese and 180 characters: a job travels through such a queue and back."""
    task = app.boost(name, results=True)(nothing)

    job = task.push()
    with app.worker():
        assert job.get(timeout=10) == "done"
    assert task.plan.queue == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q" * 181, "is 181 characters long; at most 180 are allowed."),
        ("q" * 300, "is 300 characters long; at most 180 are allowed."),
        (" orders", "begins or ends with a blank; remove it."),
        ("orders\n", "begins or ends with a blank; remove it."),
        ("\u3000订单", "begins or ends with a blank; remove it."),
        ("a\x00b", r"contains the character '\x00'; control characters and lone surrogates are not allowed."),
        ("a\nb", r"contains the character '\n'; control characters and lone surrogates are not allowed."),
        ("a\x7fb", r"contains the character '\x7f'; control characters and lone surrogates are not allowed."),
        ("a\x85b", r"contains the character '\x85'; control characters and lone surrogates are not allowed."),
        ("a\ud800b", r"contains the character '\ud800'; control characters and lone surrogates are not allowed."),
        ("orders.dead", "ends with '.dead', which is kept for dead letters; choose another."),
        (7, "is no text but int; give 1 to 180 characters."),
        (b"orders", "is no text but bytes; give 1 to 180 characters."),
    ],
)
def test_other_names_are_refused_where_the_task_is_declared(app: App, name: Any, text: str) -> None:
    """The decorator raises at once and says which name and why; of a long name it shows the beginning."""
    shown = repr(f"{name[:57]}..." if isinstance(name, str) and len(name) > 60 else name)

    with pytest.raises(BadName) as caught:
        app.boost(name, name="job")(nothing)
    assert str(caught.value) == f"queue name {shown} {text}"
    if name != "orders.dead":  # the suffix is kept for queues only
        with pytest.raises(BadName) as caught:
            app.boost("orders", name=name)(nothing)
        assert str(caught.value) == f"task name {shown} {text}"
    assert not app.tasks


def test_an_empty_name_is_refused_wherever_it_would_be_used(app: App) -> None:
    """An empty text is a name that nobody gave: the decorator falls back, job ids and foreign tasks can't."""
    assert app.boost("", name="")(nothing).queue == "nothing"
    with pytest.raises(BadName) as caught:
        app.task("nothing").options(job_id="")
    assert str(caught.value) == "job name '' is empty; give 1 to 180 characters."
    with pytest.raises(BadName) as caught:
        app.send("")
    assert str(caught.value) == "task name '' is empty; give 1 to 180 characters."


def test_a_task_may_end_like_a_queue_of_dead_letters(app: App) -> None:
    """The suffix is kept for queues only."""
    task = app.boost("orders", name="raise.dead")(nothing)

    assert (task.name, task.queue) == ("raise.dead", "orders")


@pytest.mark.parametrize("namespace", ["", "staging", "eu-1_b", "N" * 32])
def test_a_namespace_is_short_and_portable(namespace: str) -> None:
    """Up to 32 letters, digits, - and _; it stands before the queue's name, whatever that is."""
    app = App("test", broker="memory", namespace=namespace)

    assert app.boost("订单")(nothing).plan.queue == (f"{namespace}.订单" if namespace else "订单")


@pytest.mark.parametrize("namespace", ["a b", "a.b", "a/b", "中", "N" * 33, "a\n", 7])
def test_other_namespaces_are_refused(namespace: Any) -> None:
    """A dot would make a namespace look like a queue's own name; the error says what is allowed."""
    app = App("test", broker="memory", namespace=namespace)

    with pytest.raises(BadName) as caught:
        app.boost("orders")(nothing).push()

    assert str(caught.value) == (
        f"namespace name {str(namespace)!r} can't be used; give up to 32 characters of A-Z, a-z, 0-9, _ and -."
    )

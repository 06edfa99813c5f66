"""Several small requests at a time: in order, bounded, and the first error in its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from toolkit.batch.ahead import AT_ONCE, ahead


def test_ahead_answers_in_order_whatever_finishes_first() -> None:
    def ask(item: int) -> int:
        time.sleep(0.01 if item % 3 == 0 else 0)
        return item * item

    assert list(ahead(ask, range(50))) == [item * item for item in range(50)]
    assert list(ahead(ask, [])) == []


def test_ahead_asks_several_at_once_but_never_more_than_it_may_keep() -> None:
    meeting = threading.Barrier(AT_ONCE)  # passed only by so many at once
    begun: list[int] = []

    def ask(item: int) -> int:
        begun.append(item)
        if item < AT_ONCE:
            meeting.wait(30)
        return item

    answers = ahead(ask, range(10 * AT_ONCE))
    for taken, answer in enumerate(answers):
        assert answer == taken
        assert len(begun) <= taken + 1 + AT_ONCE, "answers that nobody takes are not piled up"


def test_ahead_takes_no_more_items_than_it_asks_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    answers = ahead(lambda item: item, items())
    assert next(answers) == 0 and len(made) <= AT_ONCE + 1
    answers.close()  # type: ignore[attr-defined]
    assert len(made) <= AT_ONCE + 1


def test_ahead_raises_an_error_after_the_answers_before_it() -> None:
    def ask(item: int) -> int:
        if item in (5, 3):
            raise OSError(f"no {item}")
        return item

    got = []
    with pytest.raises(OSError, match="no 3"):
        for answer in ahead(ask, range(100)):
            got.append(answer)
    assert got == [0, 1, 2]

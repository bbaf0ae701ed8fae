"""A run's budget: nothing is reserved above the limit, by however many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.errors import Refused
from composer.renderers.budget import Budget

STEPS = st.lists(st.tuples(st.sampled_from(["keep", "drop"]), st.floats(0, 20)), max_size=40)


@settings(max_examples=size(60, 2000), deadline=None)
@given(st.floats(0, 100), STEPS)
def test_what_is_spent_and_reserved_never_passes_the_limit(
    limit: float, steps: list[tuple[str, float]]
) -> None:
    budget, spent = Budget(limit), 0.0
    for what, price in steps:
        if spent + price > limit + 1e-6:
            with pytest.raises(Refused, match="above the limit"):
                budget.reserve(price)
            continue
        budget.reserve(price)
        if what == "drop":
            budget.release(price)
        else:
            budget.book(price, price)
            spent += price
        assert budget.spent == pytest.approx(spent) and budget.spent <= limit + 1e-6


def test_many_threads_share_it() -> None:
    budget = Budget(100.0)

    def spend(number: int) -> bool:
        try:
            budget.reserve(9.0)
        except Refused:
            return False
        budget.book(9.0, 9.0)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(200))) == 11
    assert budget.spent == 99.0


@pytest.mark.parametrize("later", [False, True])
def test_once_an_image_cost_more_than_its_price_none_is_started(*, later: bool) -> None:
    budget = Budget(1000.0)
    budget.reserve(9.0)
    budget.book(9.0, 9.0 if later else 12.0)
    if later:
        budget.reserve(9.0)
        budget.book(9.0, 9.0)
        budget.correct(9.0, 9.0, 12.0)
    assert budget.spent == (21.0 if later else 12.0)
    with pytest.raises(Refused, match="an image cost 12, and the target had said 9"):
        budget.reserve(1.0)


def test_large_amounts_are_written_out() -> None:
    with pytest.raises(Refused, match=r"the cost to 2345678\.25, above the limit 1234567\.5"):
        Budget(1234567.5).reserve(2345678.25)

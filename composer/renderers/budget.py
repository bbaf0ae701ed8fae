"""What a run may spend: each image is reserved before it is asked for, and booked once it is."""

from __future__ import annotations

import threading

from composer.errors import Refused
from composer.text import amount

_ROUNDING = 1e-6  # sums of prices are not exact


class Budget:
    """Spends at most `limit`, as far as prices hold. Thread-safe."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent = 0.0
        self._reserved = 0.0
        self._overrun: Refused | None = None
        self._guard = threading.Lock()

    def reserve(self, price: float) -> None:
        """Set the price of an image aside. Raises `Refused` if that would be above the limit, and
        for every image once one has cost more than its price."""
        with self._guard:
            if self._overrun:
                raise self._overrun
            total = self.spent + self._reserved + price
            if not total <= self.limit + _ROUNDING:
                raise Refused(
                    f"the image would bring the cost to {amount(total)}, above the limit"
                    f" {amount(self.limit)}",
                    hint="raise --max-cost; what is paid for is not paid for again",
                )
            self._reserved += price

    def release(self, price: float) -> None:
        """The image is not made after all."""
        with self._guard:
            self._reserved -= price

    def book(self, price: float, cost: float) -> None:
        """The image that was reserved at this price is asked for, and costs so much."""
        with self._guard:
            self._reserved -= price
            self._spend(price, 0.0, cost)

    def correct(self, price: float, before: float, cost: float) -> None:
        """An image that was booked at the cost `before` costs so much after all."""
        with self._guard:
            self._spend(price, before, cost)

    def _spend(self, price: float, before: float, cost: float) -> None:
        self.spent += cost - before
        if cost > price + _ROUNDING and self._overrun is None:
            self._overrun = Refused(
                f"an image cost {amount(cost)}, and the target had said {amount(price)}: no more"
                " are started",
                hint="look at the target's prices, then run the command again",
            )

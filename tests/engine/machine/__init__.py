"""The engine against the model: rules by subject, all of them on one engine.

Each example has some of the channels and exchanges, so that much happens to each.
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from .base import CHANNELS, pick
from .base import PRODUCER_WINDOW as PRODUCER_WINDOW
from .consuming import prefetches, subscriptions
from .partitions import PARTITIONED
from .routing import EXCHANGES, By, bindings
from .schedules import Schedules

some_channels = st.permutations(list(CHANNELS)).map(lambda names: names[:4])
some_exchanges = st.permutations([*PARTITIONED, *EXCHANGES]).map(lambda names: names[:2])


class EngineAgainstModel(Schedules):
    """All rules."""

    @initialize(
        small=st.booleans(),
        window=st.sampled_from([300, 100_000]),
        channels=some_channels,
        exchanges=some_exchanges,
        bound=st.lists(st.tuples(pick, pick, bindings), min_size=6, max_size=6),
        consumers=st.lists(st.tuples(pick, subscriptions, prefetches), min_size=1, max_size=4),
    )
    def begin(
        self,
        small: bool,
        window: int,
        channels: list[str],
        exchanges: list[str],
        bound: list[tuple[int, int, By]],
        consumers: list[tuple[int, str | None, int]],
    ) -> None:
        self.prepare(small, window)
        for name in channels:
            self.declare(name)
        for name in exchanges:
            if name in PARTITIONED:
                self._partition(0, name, 2)
            else:
                self.declare_exchange(name)
        bindable = [name for name in exchanges if name in EXCHANGES]
        for number, to, by in bound if bindable else ():
            name = bindable[number % len(bindable)]
            self.bound.append((name, channels[to % len(channels)], by))
        for name, to, by in self.bound:
            self._bind(0, name, to, by)
        self.try_routes(0)
        for name in [one for one in exchanges if one in PARTITIONED]:
            self.join(0, name, b"m" * 16)
        for which, (number, subscription, prefetch) in enumerate(consumers):
            name = list(self.model.channels)[number % len(self.model.channels)]
            self._consume(which, name, subscription, set(), prefetch=prefetch, lease_ms=1500)

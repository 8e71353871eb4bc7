"""Who runs the loop of a client without await: the caller, the keeper, or the keeper for guests."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from telpher.driver import Driver

WAIT_SECONDS = 10


class Inner:
    """What a driver keeps open: it notes in which thread its task runs, and how it ended."""

    def __init__(self) -> None:
        self.ended_with: BaseException | None = None
        self.ticked = threading.Event()
        self.ticking_thread: threading.Thread | None = None

    async def tick(self) -> None:
        """What goes on beside the calls, as heartbeats do."""
        while True:
            await asyncio.sleep(0.001)
            self.ticking_thread = threading.current_thread()
            self.ticked.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Inner]:
        task = asyncio.ensure_future(self.tick())
        try:
            yield self
        except BaseException as error:
            self.ended_with = error
            raise
        finally:
            task.cancel()


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def driver(inner: Inner) -> Iterator[Driver]:
    driver = Driver()
    assert driver.enter(inner.open) is inner
    yield driver
    driver.leave(None)


async def this_thread() -> threading.Thread:
    await asyncio.sleep(0)
    return threading.current_thread()


def test_a_lone_caller_runs_the_loop_in_its_own_thread(driver: Driver) -> None:
    assert driver.call(this_thread) is threading.current_thread()
    assert driver.call(threading.current_thread) is threading.current_thread()


def test_while_nobody_calls_the_keeper_runs_it_and_gives_it_back(
    driver: Driver, inner: Inner
) -> None:
    for _ in range(3):
        driver.call(this_thread)
        inner.ticked.clear()
        while inner.ticking_thread is not driver._keeper:
            assert inner.ticked.wait(WAIT_SECONDS)
            inner.ticked.clear()
        assert driver.call(this_thread) is threading.current_thread()


def test_callers_at_the_same_time_all_get_their_answers(driver: Driver) -> None:
    answers: dict[int, list[int]] = {number: [] for number in range(8)}

    async def answer(number: int) -> int:
        await asyncio.sleep(0.0001 * (number % 3))
        return number

    def ask(number: int) -> None:
        for step in range(50):
            answers[number].append(driver.call(answer, 100 * number + step))

    threads = [threading.Thread(target=ask, args=(number,)) for number in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert answers == {number: [100 * number + step for step in range(50)] for number in answers}


def test_one_who_waits_long_does_not_hold_up_another(driver: Driver) -> None:
    begun, release = threading.Event(), asyncio.Event()
    done: list[str] = []

    async def long() -> None:
        begun.set()
        await release.wait()

    def wait() -> None:
        driver.call(long)
        done.append("long")

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(WAIT_SECONDS)
    assert driver.call(this_thread) is thread
    assert done == []
    driver.call(release.set)
    thread.join(WAIT_SECONDS)
    assert done == ["long"]


def test_what_is_put_for_soon_is_done_without_a_call_and_before_the_next(driver: Driver) -> None:
    done: list[int] = []
    called = threading.Event()

    async def later() -> None:
        done.append(2)
        called.set()

    driver.soon(lambda: done.append(1))
    driver.soon(later)
    assert called.wait(WAIT_SECONDS)
    driver.call(this_thread)
    driver.soon(lambda: done.append(3))
    driver.call(asyncio.sleep, 0)
    assert done == [1, 2, 3]


def test_an_exception_comes_out_as_it_is_and_the_loop_goes_on(driver: Driver) -> None:
    async def fail() -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        driver.call(fail)
    assert driver.call(this_thread) is threading.current_thread()


def test_ctrl_c_ends_the_call_and_leaves_the_rest_alive(driver: Driver, inner: Inner) -> None:
    async def wait() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        driver.call(wait)
    inner.ticked.clear()
    assert inner.ticked.wait(WAIT_SECONDS)
    assert driver.call(this_thread) is threading.current_thread()


def test_ctrl_c_between_calls_is_pythons_own_and_its_handler_comes_back(inner: Inner) -> None:
    driver, other = Driver(), Driver()
    driver.enter(inner.open)
    other.enter(inner.open)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    driver.leave(None)
    assert other.call(this_thread) is threading.current_thread()
    other.leave(None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_application_is_left_alone(inner: Inner) -> None:
    caught: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        driver = Driver()
        driver.enter(inner.open)
        os.kill(os.getpid(), signal.SIGINT)
        assert driver.call(this_thread) is threading.current_thread()
        driver.leave(None)
        assert caught == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_call_inside_a_call_is_refused_and_not_a_deadlock(driver: Driver) -> None:
    def again() -> None:
        driver.call(this_thread)

    with pytest.raises(RuntimeError, match="under way"):
        driver.call(again)


class Connection:
    """Arrivals over a pair of sockets."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.mine, self.theirs = socket.socketpair()
        self.mine.setblocking(False)
        self.readable_descriptor = self.mine.fileno()
        self.received = b""
        self.changed = asyncio.Event()
        self.pushes = 0
        self.waits_in_loop = 0
        driver.arrivals = self
        driver.call(self.watch)

    def watch(self) -> None:
        """As a reader in the loop does."""
        asyncio.get_running_loop().add_reader(self.mine, self.take_in)

    def take_in(self) -> bool:
        data = self.mine.recv(100)
        self.received += data
        self.changed.set()
        return bool(data)

    def push(self) -> None:
        self.pushes += 1

    def abort(self) -> None:
        asyncio.get_running_loop().remove_reader(self.mine)
        self.readable_descriptor = -1
        self.changed.set()

    def wait(self, count: int) -> bytes:
        """What was received when it is so many bytes, or the end has come."""
        return self.driver.wait(partial(self.found, count), partial(self.wait_in_loop, count))

    def found(self, count: int) -> bytes | None:
        is_over = self.readable_descriptor < 0
        return self.received if is_over or len(self.received) >= count else None

    async def wait_in_loop(self, count: int) -> bytes:
        self.waits_in_loop += 1
        while (found := self.found(count)) is None:
            self.changed.clear()
            await self.changed.wait()
        return found


@pytest.fixture
def connection(driver: Driver) -> Iterator[Connection]:
    connection = Connection(driver)
    yield connection
    driver.call(connection.abort)
    connection.mine.close()
    connection.theirs.close()


def test_what_comes_soon_is_waited_for_past_the_loop(
    driver: Driver, connection: Connection
) -> None:
    driver.call(this_thread)  # the loop has run a moment ago
    connection.theirs.send(b"ab")
    assert connection.wait(2) == b"ab"
    assert connection.pushes
    assert not connection.waits_in_loop


def test_what_does_not_come_soon_is_waited_for_in_the_loop(connection: Connection) -> None:
    def send_when_in_loop() -> None:
        while not connection.waits_in_loop:
            pass
        connection.theirs.send(b"ab")

    sending = threading.Thread(target=send_when_in_loop)
    sending.start()
    assert connection.wait(2) == b"ab"
    sending.join(WAIT_SECONDS)


def test_a_connection_that_ends_is_given_up_in_the_loop(connection: Connection) -> None:
    connection.theirs.send(b"a")
    connection.theirs.close()
    assert connection.wait(2) == b"a"
    assert connection.readable_descriptor < 0


def test_timers_go_on_while_answers_come_past_the_loop(
    connection: Connection, inner: Inner
) -> None:
    inner.ticked.clear()
    sent = 0
    while not inner.ticked.is_set():
        connection.theirs.send(b"x")
        sent += 1
        assert len(connection.wait(sent)) == sent
    assert inner.ticking_thread is threading.current_thread()


def test_another_threads_call_is_served_while_one_waits_past_the_loop(
    driver: Driver, connection: Connection
) -> None:
    answers: list[threading.Thread] = []

    def ask() -> None:
        answers.append(driver.call(this_thread))
        connection.theirs.send(b"a")

    asking = threading.Thread(target=ask)
    driver.soon(asking.start)
    assert connection.wait(1) == b"a"
    asking.join(WAIT_SECONDS)
    assert answers == [threading.current_thread()]


def test_ctrl_c_ends_a_wait_past_the_loop(driver: Driver, connection: Connection) -> None:
    driver.soon(partial(signal.raise_signal, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        connection.wait(2)
    connection.theirs.send(b"ab")
    assert connection.wait(2) == b"ab"


@pytest.mark.parametrize("given", [None, ValueError("the block's")])
def test_leaving_tells_what_ended_the_block_and_stops_the_keeper(
    inner: Inner, given: BaseException | None
) -> None:
    driver = Driver()
    driver.enter(inner.open)
    driver.leave(given)
    assert inner.ended_with is given
    assert not driver._keeper.is_alive()


def test_what_cannot_be_entered_says_why_and_leaves_no_thread() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise OSError("no broker")
        yield

    driver = Driver()
    with pytest.raises(OSError, match="no broker"):
        driver.enter(broken)
    assert not driver._keeper.is_alive()

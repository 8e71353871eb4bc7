"""RabbitMQ's roles: pika's SelectConnection, its fastest, and BlockingConnection one at a time."""

from __future__ import annotations

import time
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop, SelectConnection

from ..job import JOBS, QUEUE, REPLIES, Job, Outcome, begin, span
from ..latency import latencies

WINDOW_MESSAGES = 1000
PREFETCH = 1000
ACK_EACH = 200
PERSISTENT = pika.BasicProperties(delivery_mode=2)


def _parameters(job: Job) -> pika.ConnectionParameters:
    # No heartbeats: nothing here is silent for long, and `begin` blocks the loop.
    return pika.ConnectionParameters(job.host, job.port, heartbeat=0)


class Select:
    """One asynchronous connection with one channel; `play` begins when that is open."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.began = 0.0
        self.ended = 0.0
        self.channel: Any = None
        self._connection = SelectConnection(_parameters(job), on_open_callback=self._on_open)

    def run(self) -> Outcome:
        """Until `finish`."""
        self._connection.ioloop.start()
        assert self.ended, "the connection was closed early"
        return {"began": self.began, "ended": self.ended}

    def finish(self) -> None:
        """All is done."""
        self.ended = time.monotonic()
        self._connection.close()
        self._connection.add_on_close_callback(lambda *_: self._connection.ioloop.stop())

    def play(self) -> None:
        """What the role does first."""
        raise NotImplementedError

    def _on_open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self.channel = channel
        self.began = begin()
        self.play()


class Producer(Select):
    """Publishes n messages, so many unconfirmed at a time."""

    def __init__(self, job: Job, window: int = WINDOW_MESSAGES) -> None:
        super().__init__(job)
        self._window = window
        self._sent = self._confirmed = 0
        self._body = job.body
        self.took: list[float] = []
        self._sent_at: list[float] = []

    def play(self) -> None:
        """Ask for confirms, and send the first window."""
        self.channel.confirm_delivery(self._on_confirm)
        self._send()

    def _send(self) -> None:
        until = min(self.job.n, self._confirmed + self._window)
        for _ in range(self._sent, until):
            self._sent_at.append(time.perf_counter())
            self.channel.basic_publish("", QUEUE, self._body, PERSISTENT)
        self._sent = until

    def _on_confirm(self, frame: Any) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        now, until = time.perf_counter(), frame.method.delivery_tag
        self.took += [now - self._sent_at[index] for index in range(self._confirmed, until)]
        self._confirmed = until
        if self._confirmed == self.job.n:
            self.finish()
        else:
            self._send()


class Consumer(Select):
    """Receives n messages and acknowledges them many at once."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._received = 0
        self._body = job.body

    def play(self) -> None:
        """Consume."""
        self.channel.basic_qos(prefetch_count=PREFETCH)
        self.channel.basic_consume(QUEUE, self._on_message)

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        assert body == self._body
        self._received += 1
        is_last = self._received == self.job.n
        if is_last or self._received % ACK_EACH == 0:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if is_last:
            self.finish()


def produce_messages(job: Job) -> Outcome:
    """Publish n messages, all confirmed."""
    return Producer(job).run()


def consume_messages(job: Job) -> Outcome:
    """Receive and acknowledge n messages."""
    return Consumer(job).run()


def publish_in_flight(job: Job) -> Outcome:
    """Publish n messages, `in_flight` unconfirmed at a time."""
    producer = Producer(job, job.options["in_flight"])
    outcome = producer.run()
    return {**outcome, **latencies(producer.took)}


def _channel(job: Job) -> Any:
    return pika.BlockingConnection(_parameters(job)).channel()


# Confirms and prefetch are its batches.
produce_unbatched = produce_messages
consume_batches = consume_messages
produce_batches = produce_messages


class Crowd:
    """Many connections with one channel each, on one loop; `play` begins when all are open."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.channels: list[Any] = []
        self.done = 0
        self._ended = 0.0
        self._loop = IOLoop()
        self._connections: list[Any] = []
        self._open_next()

    def run(self) -> Outcome:
        """Until n are done."""
        self._loop.start()
        assert self._ended, "a connection was closed early"
        return {"began": self.began, "ended": self._ended}

    def count(self) -> None:
        """One more is done; the loop ends with the last."""
        self.done += 1
        if self.done == self.job.n:
            self._ended = time.monotonic()
            for connection in list(self._connections):
                connection.add_on_close_callback(self._on_close)
                connection.close()

    def set_up(self, channel: Any) -> None:
        """What a channel needs before the beginning."""

    def play(self) -> None:
        """What the role does first."""
        raise NotImplementedError

    def _on_close(self, connection: Any, reason: Any) -> None:
        self._connections.remove(connection)
        if not self._connections:
            self._loop.stop()

    def _open_next(self) -> None:
        connection = SelectConnection(
            _parameters(self.job), on_open_callback=self._on_open, custom_ioloop=self._loop
        )
        self._connections.append(connection)

    def _on_open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self.channels.append(channel)
        self.set_up(channel)
        if len(self.channels) < self.job.options["connections"]:
            self._open_next()
        else:
            self.began = begin()
            self.play()


class Publishers(Crowd):
    """On each connection one publish after the other, each confirmed."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.took: list[float] = []
        self._body = job.body

    def play(self) -> None:
        """The first of each connection."""
        shares = self.job.shares(len(self.channels))
        for channel, share in zip(self.channels, shares, strict=True):
            Publisher(self, channel, share)

    def publish(self, channel: Any) -> None:
        """One."""
        channel.basic_publish("", QUEUE, self._body, PERSISTENT)


class Publisher:
    """One connection of many."""

    def __init__(self, crowd: Publishers, channel: Any, share: int) -> None:
        self._crowd = crowd
        self._channel = channel
        self._left = share
        channel.confirm_delivery(self._on_confirm)
        self._publish()

    def _publish(self) -> None:
        if self._left:
            self._left -= 1
            self._before = time.perf_counter()
            self._crowd.publish(self._channel)

    def _on_confirm(self, frame: Any) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        self._crowd.took.append(time.perf_counter() - self._before)
        self._publish()
        self._crowd.count()


class Workers(Crowd):
    """Each connection with prefetch 1."""

    def set_up(self, channel: Any) -> None:
        """One at a time."""
        channel.basic_qos(prefetch_count=1)

    def play(self) -> None:
        """Consume."""
        for channel in self.channels:
            channel.basic_consume(QUEUE, self._on_message)

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        channel.basic_ack(method.delivery_tag)
        self.count()


def publish_each(job: Job) -> Outcome:
    """Publish n messages, on each connection one after the other, each confirmed."""
    if job.options["connections"] == 1:
        return _publish_each_blocking(job)
    publishers = Publishers(job)
    return {**publishers.run(), **latencies(publishers.took)}


def _publish_each_blocking(job: Job) -> Outcome:
    channel, body = _channel(job), job.body
    channel.confirm_delivery()
    took = []
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        channel.basic_publish("", QUEUE, body, PERSISTENT)
        took.append(time.perf_counter() - before)
    return span(began, **latencies(took))


def work_all(job: Job) -> Outcome:
    """Consume n messages together, each connection one at a time."""
    return Workers(job).run()


def stay_connected(job: Job) -> Outcome:
    """Do nothing until the word."""
    connections = [
        pika.BlockingConnection(_parameters(job)) for _ in range(job.options["connections"])
    ]
    outcome = span(begin())
    for connection in connections:
        connection.close()
    return outcome


def declare_queues(job: Job) -> Outcome:
    """Declare `queues` durable queues and leave them empty."""
    channel = _channel(job)
    began = begin()
    for index in range(job.options["queues"]):
        channel.queue_declare(f"{QUEUE}-{index}", durable=True)
    return span(began)


def ask_sync(job: Job) -> Outcome:
    """Send n jobs and wait for the reply to each before the next."""
    channel, body = _channel(job), job.body
    channel.basic_qos(prefetch_count=1)
    replies = channel.consume(REPLIES)
    took = []
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        channel.basic_publish("", JOBS, body, PERSISTENT)
        method, _, reply = next(replies)
        took.append(time.perf_counter() - before)
        assert reply == body
        channel.basic_ack(method.delivery_tag)
    return span(began, **latencies(took))


def answer_sync(job: Job) -> Outcome:
    """Take n jobs and send back what came with each."""
    channel = _channel(job)
    channel.basic_qos(prefetch_count=1)
    jobs = channel.consume(JOBS)
    began = begin()
    for _ in range(job.n):
        method, _, body = next(jobs)
        channel.basic_publish("", REPLIES, body, PERSISTENT)
        channel.basic_ack(method.delivery_tag)
    channel.connection.close()
    return span(began)

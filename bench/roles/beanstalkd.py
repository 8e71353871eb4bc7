"""beanstalkd's roles: greenstalk, one command and its answer at a time."""

from __future__ import annotations

import time
from typing import Any

import greenstalk

from ..job import JOBS, QUEUE, REPLIES, Job, Outcome, begin, span
from ..latency import latencies


def connect(job: Job, use: str = QUEUE, watch: str = QUEUE) -> Any:
    """A client that puts into one tube and reserves from one."""
    return greenstalk.Client((job.host, job.port), encoding=None, use=use, watch=watch)


def produce_messages(job: Job) -> Outcome:
    """Put n jobs, each answered."""
    client, body = connect(job), job.body
    began = begin()
    for _ in range(job.n):
        client.put(body)
    return span(began)


def consume_messages(job: Job) -> Outcome:
    """Reserve and delete n jobs."""
    client, body = connect(job), job.body
    began = begin()
    for _ in range(job.n):
        reserved = client.reserve(timeout=30)
        assert reserved.body == body
        client.delete(reserved)
    return span(began)


# One at a time is all it has.
produce_unbatched = produce_messages
consume_batches = consume_messages


def publish_each(job: Job) -> Outcome:
    """Put n jobs, each answered before the next."""
    client, body = connect(job), job.body
    took = []
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        client.put(body)
        took.append(time.perf_counter() - before)
    return span(began, **latencies(took))


publish_in_flight = publish_each


def ask_sync(job: Job) -> Outcome:
    """Send n jobs and wait for the reply to each before the next."""
    client, body = connect(job, use=JOBS, watch=REPLIES), job.body
    took = []
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        client.put(body)
        reply = client.reserve(timeout=30)
        took.append(time.perf_counter() - before)
        assert reply.body == body
        client.delete(reply)
    return span(began, **latencies(took))


def answer_sync(job: Job) -> Outcome:
    """Take n jobs and send back what came with each."""
    client = connect(job, use=REPLIES, watch=JOBS)
    began = begin()
    for _ in range(job.n):
        reserved = client.reserve(timeout=60)
        client.put(reserved.body)
        client.delete(reserved)
    return span(began)

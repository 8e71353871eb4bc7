"""Mutants of the engine: what is journalled, once-only, leases and attempts, all or nothing."""

from __future__ import annotations

from .mutant import Mutant

_ENGINE = "broker/telpher_broker/engine"
_APPLY = f"{_ENGINE}/apply.py"
_DECIDE = f"{_ENGINE}/decide.py"
_DUMP = f"{_ENGINE}/dump.py"
_MEMBERSHIP = f"{_ENGINE}/membership.py"
_LEAVING = f"{_ENGINE}/leaving.py"
_RESUMING = f"{_ENGINE}/resuming.py"
_TRANSACT = f"{_ENGINE}/transact.py"
_PUBLISH = f"{_ENGINE}/publish.py"
_DISPATCH = f"{_ENGINE}/dispatch.py"
_SUBSCRIPTION = f"{_ENGINE}/subscription.py"

_MODEL = "tests/engine/test_model.py"
_LAWS = "tests/engine/test_laws.py"
_TEST_TRANSACT = "tests/engine/test_transact.py"
_TEST_PUBLISH = "tests/engine/test_publish.py"
_TEST_CORE = "tests/broker/test_core.py"

MUTANTS = (
    # -- journalled
    Mutant(
        "an ack is applied and not journalled",
        _DECIDE,
        """        r.Settled(subscription.channel.number, subscription.name, r.Reason.ACKED, offsets),
        subscription.durable,
    )""",
        """        r.Settled(subscription.channel.number, subscription.name, r.Reason.ACKED, offsets),
        False,
    )""",
        _LAWS,
    ),
    Mutant(
        "the attempts of what is given back are not journalled",
        _DECIDE,
        """                subscription.channel.number, subscription.name, attempt, due_ms, joined(ranges)
            ),
            subscription.durable,""",
        """                subscription.channel.number, subscription.name, attempt, due_ms, joined(ranges)
            ),
            False,""",
        _LAWS,
    ),
    Mutant(
        "a first delivery is not journalled: its message comes unmarked after a restart",
        _DISPATCH,
        """    if span is None or span.attempt == 0:
        turn.commit(r.Started(number, name, (first, end)), subscription.durable)""",
        """    if span is None or span.attempt == 0:
        turn.commit(r.Started(number, name, (first, end)), False)""",
        _LAWS,
    ),
    Mutant(
        "nothing is journalled of a publish but its batch",
        _PUBLISH,
        """            turn.now_ms,
            properties,
            producer,
            sequence,
            batch,""",
        """            turn.now_ms,
            properties,
            None,
            0,
            batch,""",
        _TEST_PUBLISH,
    ),
    Mutant(
        "a transaction is not remembered",
        _TRANSACT,
        """    turn.commit(r.Transacted(frame.producer, frame.sequence, turn.now_ms, firsts))
""",
        "",
        _TEST_TRANSACT,
    ),
    Mutant(
        "the number of a transaction is remembered until the next start",
        _TRANSACT,
        "    turn.commit(r.Transacted(frame.producer, frame.sequence, turn.now_ms, firsts))",
        "    turn.commit(r.Transacted(frame.producer, frame.sequence, turn.now_ms, firsts), False)",
        _TEST_TRANSACT,
    ),
    Mutant(
        "a time of a schedule has its message and does not stand as done",
        f"{_ENGINE}/schedules/scheduling.py",
        """    turn.commit(record)
    turn.counters["schedules_fired"]""",
        """    turn.commit(record, False)
    turn.counters["schedules_fired"]""",
        "tests/engine/test_scheduling.py",
    ),
    # -- once
    Mutant(
        "a batch that comes again is stored again",
        _PUBLISH,
        "    place = producer.recent.get(sequence)\n",
        "    place = None\n",
        _TEST_PUBLISH,
    ),
    Mutant(
        "a number from before the window is taken for a new one",
        _PUBLISH,
        "    elif len(producer.recent) >= f.PRODUCER_WINDOW and sequence < producer.lowest():",
        "    elif len(producer.recent) > 9 * f.PRODUCER_WINDOW and sequence < producer.lowest():",
        _TEST_PUBLISH,
    ),
    Mutant(
        "the window of a producer forgets what came first, and not the lowest",
        f"{_ENGINE}/state.py",
        """        if is_behind:
            self.recent = dict(sorted(recent.items()))
""",
        "",
        _TEST_PUBLISH,
    ),
    Mutant(
        "producers are not part of a snapshot",
        _DUMP,
        "            yield _bytes((5, [self._producer_row(name) for name in names])), (), ()",
        "            yield _bytes((5, [self._producer_row(n) for n in names][:0])), (), ()",
        _LAWS,
    ),
    Mutant(
        "producers' windows are not restored from a snapshot",
        _DUMP,
        "        producer.recent = dict(sorted(zip(recent[::2], places, strict=True)))\n",
        "",
        _LAWS,
    ),
    Mutant(
        "replay does not remember who published what",
        _APPLY,
        "    producer.remember(sequence, place)\n",
        "    if not state.numbered or state.sessions:\n        producer.remember(sequence, place)\n",
        _LAWS,
    ),
    Mutant(
        "producers are forgotten while they publish",
        f"{_ENGINE}/ticks.py",
        "if len(stale) >= excess and producer.last_ms > horizon_ms:",
        "if len(stale) >= excess and len(stale) >= _FORGET_MAX:",
        "tests/engine/test_publish.py::test_a_producer_is_remembered_for_as_long_as_it_was_told",
    ),
    # -- leases and settling
    Mutant(
        "what somebody else holds is settled for whoever asks",
        _DECIDE,
        """        if reached < end:
            lost.append((reached, end))
    return held, lost""",
        """        if reached < end:
            held.append((reached, end, 1))
    return held, lost""",
        "tests/broker/test_core.py::"
        "test_an_ack_that_comes_again_is_not_lost_unless_another_has_the_message",
    ),
    Mutant(
        "an ack of what is not held any more is answered as if it had been",
        _DECIDE,
        """        if reached < end:
            lost.append((reached, end))
    return held, lost""",
        """    return held, lost""",
        "tests/broker/test_core.py::"
        "test_an_ack_that_comes_again_is_not_lost_unless_another_has_the_message",
    ),
    Mutant(
        "a lease is not given back when its connection breaks",
        _MEMBERSHIP,
        """            lose(turn, consumer, leases(consumer), CONSUMER_LOST)
            leave(turn, consumer)""",
        """            consumer.session = None""",
        "tests/engine/test_membership.py::test_what_a_broken_connection_held_goes_to_another",
    ),
    Mutant(
        "who is away to resume keeps its leases for as long as they last",
        _LEAVING,
        """        if span.deadline_ms > deadline_ms:
            consumer.subscription""",
        """        if span.deadline_ms > deadline_ms + (1 << 40):
            consumer.subscription""",
        "tests/engine/test_membership.py::test_what_a_broken_connection_held_goes_to_another",
    ),
    Mutant(
        "who leaves keeps what it holds",
        _LEAVING,
        "    requeue(turn, consumer, leases(consumer), 0)\n",
        "",
        "tests/engine/test_membership.py::test_what_somebody_held_who_leaves_goes_to_another",
    ),
    Mutant(
        "who loses a lease by its end is not told",
        f"{_ENGINE}/ticks.py",
        "    turn.reply(consumer.session, Lost(consumer.request, offsets))\n",
        "",
        "tests/engine/test_membership.py::test_a_lease_that_nobody_renews_ends_in_its_time",
    ),
    Mutant(
        "the attempt does not grow",
        _SUBSCRIPTION,
        "            back = Span(span.first, span.end, attempt, span.priority, due_ms)",
        "            back = Span(span.first, span.end, 0, span.priority, due_ms)",
        _MODEL,
    ),
    Mutant(
        "what comes back loses its priority",
        _SUBSCRIPTION,
        "            back = Span(span.first, span.end, attempt, span.priority, due_ms)",
        "            back = Span(span.first, span.end, attempt, 0, due_ms)",
        "tests/engine/test_priorities.py::test_what_comes_back_keeps_its_priority",
    ),
    Mutant(
        "after a restart what was delivered goes to whoever comes first",
        _RESUMING,
        "            subscription.former_run = former_run\n",
        "",
        _TEST_CORE,
    ),
    Mutant(
        "who resumes takes what somebody else has",
        _RESUMING,
        """        else:
            lost.append((start, stop))
            continue
        runs""",
        """        else:
            delivery = span.delivery
        runs""",
        "tests/engine/test_membership.py::test_what_is_lost_is_told_in_order",
    ),
    Mutant(
        "a batch goes with its first settled message",
        f"{_ENGINE}/log.py",
        "            done = [] if within.live else [within]",
        "            done = [within]",
        _MODEL,
    ),
    # -- all or nothing
    Mutant(
        "a transaction acknowledges before it knows whether it can publish",
        _TRANSACT,
        """    publications = [_prepared(turn, session, name, batch) for name, batch in frame.publishes]
    for consumer, held in acks:
        count = count_of(held)
        acknowledge(turn, consumer, held, count)
        turn.top_up(consumer, count)
""",
        """    for consumer, held in acks:
        count = count_of(held)
        acknowledge(turn, consumer, held, count)
        turn.top_up(consumer, count)
    publications = [_prepared(turn, session, name, batch) for name, batch in frame.publishes]
""",
        _TEST_TRANSACT,
    ),
    Mutant(
        "a transaction publishes though a lease is lost",
        _TRANSACT,
        "        if lost:\n            channel",
        "        if not held and not lost:\n            channel",
        _TEST_TRANSACT,
    ),
    Mutant(
        "a refused publish of a transaction is left out, and the rest is done",
        _TRANSACT,
        "    publications = [_prepared(turn, session, name, batch) for name, batch in "
        "frame.publishes]\n",
        """    publications = []
    for name, batch in frame.publishes:
        try:
            publications.append(_prepared(turn, session, name, batch))
        except Refusal:
            pass
""",
        "tests/engine/test_transact.py::test_what_is_refused_is_refused_whole",
    ),
    Mutant(
        "what a transaction acknowledges gives no credit back",
        _TRANSACT,
        "        turn.top_up(consumer, count)\n",
        "",
        _MODEL,
    ),
    Mutant(
        "a transaction says of its second batch to a channel what it says of the first",
        _TRANSACT,
        "    publication.first = turn.state.next_of(publication.source)\n",
        "",
        _MODEL,
    ),
    # -- routing
    Mutant(
        "what goes to several channels passes what one of them got before",
        f"{_ENGINE}/routing/route.py",
        "                joinable.pop(last.get(number, ()), None)\n",
        "",
        _MODEL,
    ),
    Mutant(
        "what was remembered of a key holds on when another binding has come",
        f"{_ENGINE}/routing/exchanges.py",
        """        self.bindings += 1
        self._forget_routes()
""",
        """        self.bindings += 1
""",
        _MODEL,
    ),
    Mutant(
        "the numbers of an exchange begin anew after a snapshot",
        f"{_ENGINE}/routing/chunks.py",
        "    exchange.next = following\n",
        "",
        _MODEL,
    ),
    # -- partitions
    Mutant(
        "a partition is served to the member that holds some of it and to its owner at once",
        _SUBSCRIPTION,
        """        if next(holders, None) is not None:
            return None
        return active if active is self.owner or "partition" not in self.channel.config else None""",
        """        return self.owner""",
        _MODEL,
    ),
    Mutant(
        "who subscribes to the partitions of a topic misses what goes to a new one",
        f"{_ENGINE}/routing/partitions.py",
        "        if name and subscription.durable:\n",
        "        if name and not subscription.durable:\n",
        _MODEL,
    ),
    Mutant(
        "a key's partition depends on which came first",
        f"{_ENGINE}/routing/hashring.py",
        "        self._pairs.sort()\n",
        "        self._pairs.sort(key=lambda pair: len(self._pairs) * pair[0] % 2**61)\n",
        _MODEL,
    ),
    # -- bounds
    Mutant(
        "each batch of a transaction has the same room to itself",
        f"{_ENGINE}/limits/bounds.py",
        "    turn.promised[channel] = messages, body_bytes\n",
        "",
        _MODEL,
    ),
    Mutant(
        "what consumers hold counts for what a queue drops",
        f"{_ENGINE}/limits/overflow.py",
        "        ready = queue.ranges.counts[READY] + queue.tail_count\n        excess",
        "        ready = sum(queue.ranges.counts) + queue.tail_count\n        excess",
        _MODEL,
    ),
    Mutant(
        "of what is too much the last in line goes",
        _SUBSCRIPTION,
        """        if lowest is None:
            return self.cursor, self.channel.log.next
""",
        """        if lowest is None:
            return self.channel.log.next - 1, self.channel.log.next
""",
        _MODEL,
    ),
    Mutant(
        "what a queue drops comes back after a restart",
        f"{_ENGINE}/limits/overflow.py",
        "    turn.commit(r.Settled(number, queue.name, r.Reason.DROPPED, flatten(ranges)))\n",
        "    turn.commit(r.Settled(number, queue.name, r.Reason.DROPPED, flatten(ranges)), False)\n",
        _MODEL,
    ),
    Mutant(
        "what a topic keeps for replay only takes room",
        f"{_ENGINE}/limits/bounds.py",
        "    if lack is not None and channel.kind != QUEUE:",
        "    if lack is not None and not channel.kind:",
        _MODEL,
    ),
    # -- quotas
    Mutant(
        "each batch of a transaction has all of a quota to itself",
        f"{_ENGINE}/limits/metering.py",
        "        promised, _ = turn.promised.get(meter, (0, 0))\n",
        "        promised = 0\n",
        _MODEL,
    ),
    Mutant(
        "a channel goes by the quotas that there were when it was first published to",
        f"{_ENGINE}/state.py",
        "        if channel.seen != self.changes:\n",
        "        if channel.seen < 1:\n",
        _MODEL,
    ),
    Mutant(
        "what goes to several channels is dropped for one topic's quota",
        _PUBLISH,
        "                if frame.confirm or dropped.channel is not channel:",
        "                if frame.confirm:",
        "tests/engine/test_quotas.py",
    ),
    Mutant(
        "a quota is gone after a restart",
        f"{_ENGINE}/limits/metering.py",
        "        turn.commit(r.QuotaSet(*quota))",
        "        turn.commit(r.QuotaSet(*quota), False)",
        _MODEL,
    ),
    # -- schedules
    Mutant(
        "for all that a schedule missed each time has its message, not one in all",
        f"{_ENGINE}/schedules/scheduling.py",
        "    is_each = not is_missed or schedule.catch_up == ALL\n",
        "    is_each = True\n",
        _MODEL,
    ),
    Mutant(
        "what a schedule could not store counts for what is published next",
        f"{_ENGINE}/schedules/scheduling.py",
        "        turn.forget_prepared()\n        return str(refused)",
        "        return str(refused)",
        _MODEL,
    ),
    # -- snapshots
    Mutant(
        "what changes while a snapshot is written shows in it",
        _DUMP,
        "            self._channels[number] = _freeze_channel(channel)\n\n    def keep_exchange",
        "            pass\n\n    def keep_exchange",
        _LAWS,
    ),
    Mutant(
        "what a producer sends while a snapshot is written shows in it",
        _DUMP,
        "            self._producers[name] = _freeze_producer(name, producer)\n",
        "            pass\n",
        "tests/engine/test_laws.py::test_a_snapshot_shows_no_batch_that_came_later",
    ),
    Mutant(
        "attempts are not part of a snapshot",
        _DUMP,
        "        row = (span.first, span.end, span.attempt, span.priority, span.due_ms)",
        "        row = (span.first, span.end, 0, span.priority, span.due_ms)",
        _LAWS,
    ),
    Mutant(
        "what expires is not told of to a loaded channel",
        _DUMP,
        "        channel.expect_expiry(stored)\n",
        "",
        "tests/engine/test_laws.py::test_what_expires_still_expires_after_a_snapshot",
    ),
    Mutant(
        "on a full disk publishes are stored",
        f"{_ENGINE}/engine.py",
        'it takes some again when there is space" if full else None',
        'it takes some again when there is space" if not self else None',
        "tests/engine/test_scheduling.py::test_while_the_disk_is_full_it_waits",
    ),
)

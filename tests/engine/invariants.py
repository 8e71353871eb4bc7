"""What must hold of the engine's state after every round: the law of conservation, and the
indexes that are kept beside what they index."""

from __future__ import annotations

from itertools import pairwise

from telpher.protocol.channel_options import QUEUE
from telpher_broker.engine.engine import Engine
from telpher_broker.engine.limits.lines import PUBLISH_BYTES
from telpher_broker.engine.log import CHUNK_ENTRIES, Log
from telpher_broker.engine.memory import size_of
from telpher_broker.engine.ranges import DELAYED, LEASED, READY, Ranges
from telpher_broker.engine.sessions import Gate
from telpher_broker.engine.state import Channel
from telpher_broker.engine.subscription import Subscription
from telpher_broker.engine.uniqueness.compaction import Compaction


def check_engine(engine: Engine) -> None:
    """Everything."""
    state = engine.state
    assert {c.number: c for c in state.channels.values()} == state.numbered
    assert all(name == channel.name for name, channel in state.channels.items())
    assert all(number < state.next_channel for number in state.numbered)
    for channel in state.numbered.values():
        check_channel(channel)
        check_expiring(channel, engine._turn.now_ms)
        check_identities(channel)
    check_sessions(engine)
    check_lines(engine)
    check_output(engine)
    check_security(engine)


def check_output(engine: Engine) -> None:
    """What is on its way is that of all sessions, and who is still to be told of a gap has one."""
    turn, most = engine._turn, engine.settings.output_bytes_max
    sessions = engine.state.sessions.values()
    assert turn.output_bytes == sum(most - session.window_bytes for session in sessions)
    assert all(consumer.gap is not None for consumer in turn.lagging)
    for session in sessions:
        for consumer in session.consumers.values():
            is_waiting = consumer in turn.lagging or consumer in session.blocked
            assert is_waiting or consumer.gap is None


def check_security(engine: Engine) -> None:
    """Nobody has more than the tables give, and what is counted beside them is right."""
    state = engine.state
    security = state.security
    assert security.subjects == {
        user.subject: user.name for user in security.users.values() if user.subject is not None
    }
    assert all(token.user in security.users for token in security.tokens.values())
    for name, namespace in security.namespaces.items():
        mine = [c for c in state.numbered.values() if c.name.startswith(name + "/")]
        assert all(channel.namespace is namespace for channel in mine)
        assert namespace.channels == len(mine)
        assert namespace.account.body_bytes == sum(c.log.body_bytes for c in mine)
    for (name, namespace), allowance in security.allowances.items():
        sharing = [s for s in state.sessions.values() if s.allowed is allowance.names]
        assert len(sharing) <= allowance.sessions > 0
        assert all((s.user, s.namespace) == (name, namespace) for s in sharing)
    for session in state.sessions.values():
        user = security.users.get(session.user or "")
        if session.user is None or (user is not None and user.namespace != session.namespace):
            continue
        for name, full in (session.allowed or {}).items():
            assert full == session.prefix + name
            assert user is not None
            assert user.may("publish", name)
        for consumer in session.consumers.values():
            name = consumer.subscription.channel.name.removeprefix(session.prefix)
            assert session.is_ended or (user is not None and user.may("consume", name))


def check_channel(channel: Channel) -> None:
    check_log(channel.log)
    for name, subscription in channel.subscriptions.items():
        assert subscription.name == name
        assert subscription.channel is channel
        check_subscription(subscription)
    if channel.drops_settled:
        check_queue_log(channel)
    elif channel.kind == QUEUE:
        check_retaining_log(channel)
    else:
        check_topic_log(channel)


def check_log(log: Log) -> None:
    entries = list(log)
    assert [s.first for s in entries] == sorted(s.first for s in entries)
    assert all(a.end <= b.first for a, b in pairwise(entries))
    assert all(s.first < s.end for s in entries)
    assert log.body_bytes == sum(size_of(s.batch) for s in entries)
    assert log.memory_bytes == sum(len(s.batch) for s in entries if type(s.batch) is bytes)
    assert log.start == (entries[0].first if entries else log.next)
    assert not entries or entries[-1].end <= log.next
    chunks, firsts = log._chunks, log._firsts
    assert firsts == [chunk.firsts[0] for chunk in chunks]
    for chunk in chunks:
        assert 0 < len(chunk.entries) <= CHUNK_ENTRIES
        assert chunk.firsts == [s.first for s in chunk.entries]


def check_queue_log(channel: Channel) -> None:
    """Nothing that nobody needs, nothing missing that somebody needs."""
    assert list(channel.subscriptions) == [""]
    wanted = unsettled(channel.subscriptions[""])
    kept: set[int] = set()
    for stored in channel.log:
        live = {offset for offset in range(stored.first, stored.end) if offset in wanted}
        assert stored.live == len(live) > 0
        kept |= live
    assert kept == wanted


def check_retaining_log(channel: Channel) -> None:
    """Nothing missing that somebody needs, whatever is there beside it."""
    kept = {offset for stored in channel.log for offset in range(stored.first, stored.end)}
    assert unsettled(channel.subscriptions[""]) <= kept


def check_topic_log(channel: Channel) -> None:
    log = channel.log
    if channel.compaction is None:
        reached = log.start
        for stored in log:
            assert stored.first == reached
            reached = stored.end
        assert reached == log.next
    else:
        check_compaction(channel, channel.compaction)
    for subscription in channel.subscriptions.values():
        assert subscription.low >= log.start


def check_compaction(channel: Channel, compaction: Compaction) -> None:
    """Nobody waits for what is not there, and nobody's tail begins in a gap."""
    log = channel.log
    present = {offset for stored in log for offset in range(stored.first, stored.end)}
    assert log.messages == len(present)
    assert set(compaction._latest.values()) <= present
    assert all(0 <= stored.live <= stored.end - stored.first for stored in log)
    for subscription in channel.subscriptions.values():
        assert subscription.cursor in present or subscription.cursor == log.next
        assert unsettled(subscription) <= present


def check_expiring(channel: Channel, now_ms: int) -> None:
    """Only what the log still has may be waited for, but for a second look at what was leased."""
    kept = {(s.expires_ms, s.first, s.end) for s in channel.log if s.expires_ms is not None}
    rest = set(channel.expiring) - kept
    assert all(when_ms <= now_ms + 1000 for when_ms, _, _ in rest)


def check_identities(channel: Channel) -> None:
    """Every id is remembered once; who holds a key by state is not settled."""
    window, uniques = channel.dedup, channel.uniques
    if window is not None:
        runs = window.frozen()
        remembered = {
            one: run.first + index
            for run in runs
            for index, one in enumerate(run.ids)
            if one is not None
        }
        assert remembered == window._offsets
        assert len(remembered) == sum(one is not None for run in runs for one in run.ids)
        assert [run.published_ms for run in runs] == sorted(run.published_ms for run in runs)
    if uniques is not None:
        held = {holder.offset: key for key, row in uniques._held.items() for holder in row}
        assert held == uniques._keys
        assert channel.kind == QUEUE or not held
        assert channel.kind != QUEUE or set(held) <= unsettled(channel.subscriptions[""])
        ends = sorted((holder.until_ms, key) for key, holder in uniques._timed.items())
        assert list(uniques._ends) == ends


def check_subscription(subscription: Subscription) -> None:
    check_ranges(subscription.ranges)
    log = subscription.channel.log
    assert 0 <= subscription.cursor <= log.next
    assert all(span.end <= subscription.cursor for span in subscription.ranges)
    assert subscription.tail_count == len(tail_of(subscription))
    leased: dict[int, int] = {}
    for consumer in subscription.consumers:
        assert consumer.subscription is subscription
        for first, span in consumer.leases.items():
            assert span.consumer is consumer
            assert first not in leased
            leased[first] = span.end
    assert leased == {s.first: s.end for s in subscription.ranges if s.state == LEASED}
    assert len(set(map(id, subscription.waiting))) == len(subscription.waiting)
    assert subscription.exclusive == sum(consumer.exclusive for consumer in subscription.consumers)
    assert all(c.waiting and c in subscription.consumers for c in subscription.waiting)
    partition = subscription.channel.config.get("partition")
    if partition is not None:
        assert sum(bool(consumer.leases) for consumer in subscription.consumers) <= 1
        members = sorted({c.member for c in subscription.consumers if c.session is not None})
        owner = members[partition % len(members)] if members else None
        assert owner == (subscription.owner and subscription.owner.member)


def check_ranges(ranges: Ranges) -> None:
    """Spans are disjoint, and every index and count agrees with them."""
    spans = list(ranges)
    assert all(span.first < span.end for span in spans)
    assert all(a.end <= b.first for a, b in pairwise(spans))
    assert all(ranges.at(span.first) is span for span in spans)
    ready = [s for s in spans if s.state == READY]
    delayed = [s for s in spans if s.state == DELAYED]
    leased = [s for s in spans if s.state == LEASED]
    in_line = ready if ranges.in_line else []
    assert list(ranges._ready) == sorted(span.line for span in in_line)
    assert all(span.line == ranges._line(span) for span in in_line)
    assert all(span.behind is None or (span.due_ms and not span.attempt) for span in ready)
    assert list(ranges._delayed) == sorted((s.due_ms, s.first) for s in delayed)
    assert list(ranges._leased) == sorted((s.deadline_ms, s.first) for s in leased)
    assert ranges.counts == [
        sum(s.end - s.first for s in kind) for kind in (ready, delayed, leased)
    ]
    assert all((s.consumer is None) == (s.state != LEASED) for s in spans if s.state == LEASED)


def check_lines(engine: Engine) -> None:
    """Each line stands at one gate, and what waits is counted."""
    turn = engine._turn
    assert not turn.promised
    assert turn.served is None
    waiting = waiting_bytes = 0
    gates: dict[Gate, int] = {}
    for session in engine.state.sessions.values():
        for name, line in session.lines.items():
            assert line.session is session
            assert line in line.gate.lines
            assert line.frames
            assert all(frame.channel == name for frame in line.frames)
            waiting += len(line.frames)
            gates[line.gate] = gates.get(line.gate, 0) + 1
        frames = [frame for line in session.lines.values() for frame in line.frames]
        assert session.waiting_bytes == sum(len(f.batch) + PUBLISH_BYTES for f in frames)
        waiting_bytes += session.waiting_bytes
    assert (turn.waiting, turn.waiting_bytes) == (waiting, waiting_bytes)
    assert all(len(gate.lines) == count for gate, count in gates.items())


def check_sessions(engine: Engine) -> None:
    state = engine.state
    for number, session in state.sessions.items():
        assert session.number == number
        for request, consumer in session.consumers.items():
            assert consumer.request == request
            assert consumer.session is session
            assert consumer in consumer.subscription.consumers
            assert not consumer.parts
            held = sum(s.end - s.first for s in consumer.leases.values())
            if consumer.prefetch and consumer.subscription.acks:
                assert consumer.credit == consumer.prefetch - held
            elif not consumer.prefetch:
                assert (consumer.credit > 0) == (consumer.fetch is not None)
    for token, consumer in state.tokens.items():
        assert consumer.token == token
        assert consumer in consumer.subscription.consumers
    for channel in state.numbered.values():
        for subscription in channel.subscriptions.values():
            for consumer in subscription.consumers:
                # Away, it is here for its leases alone.
                if consumer.session is None:
                    assert consumer.leases
                else:
                    assert consumer.session.consumers[consumer.request] is consumer


def tail_of(subscription: Subscription) -> set[int]:
    """The offsets of the tail: of a compacted topic those that are there."""
    log, cursor = subscription.channel.log, subscription.cursor
    if subscription.channel.compaction is None:
        return set(range(cursor, log.next))
    return {
        offset
        for stored in log.since(cursor)
        for offset in range(max(stored.first, cursor), stored.end)
    }


def unsettled(subscription: Subscription) -> set[int]:
    """Every offset that is not settled."""
    found = tail_of(subscription)
    for span in subscription.ranges:
        found |= set(range(span.first, span.end))
    return found

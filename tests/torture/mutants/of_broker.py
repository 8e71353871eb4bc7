"""Mutants of the rounds and of the rim: confirm after write and sync, heartbeats, the clock."""

from __future__ import annotations

from .mutant import Mutant

_ROUNDS = "broker/telpher_broker/rounds.py"
_CORE = "broker/telpher_broker/core.py"
_WATCH = "broker/telpher_broker/watch.py"
_SCRAM = "client/telpher/protocol/scram.py"
_DOOR = "broker/telpher_broker/authentication.py"
_ACCESS = "broker/telpher_broker/engine/security/access.py"
_WINDOW = "client/telpher/session/window.py"
_SESSION = "client/telpher/session/session.py"

_TEST_CORE = "tests/broker/test_core.py"
_TEST_DOOR = "tests/broker/test_authentication.py"
_TEST_ACCESS = "tests/engine/test_security.py"

MUTANTS = (
    # -- commit, then speak
    Mutant(
        "a confirm before the write",
        _ROUNDS,
        """        taken = engine.take_round()
        if taken.records:""",
        """        taken = engine.take_round()
        self._speak(taken.effects)
        taken = taken._replace(effects=[])
        if taken.records:""",
        _TEST_CORE,
    ),
    Mutant(
        "a confirm before the sync, with fsync always",
        _ROUNDS,
        "            self._line_up(taken.effects + taken.synced_effects, came_bytes)",
        "            self._speak(taken.effects + taken.synced_effects)",
        _TEST_CORE,
    ),
    Mutant(
        "a confirm before the sync that its publish asked for",
        _ROUNDS,
        "            self._line_up(taken.synced_effects, came_bytes)",
        "            self._speak(taken.synced_effects)",
        "tests/broker/test_core.py::test_one_publish_may_ask_for_a_sync_and_others_do_not_wait_for_it",
    ),
    Mutant(
        "what waits for a sync is said while it runs",
        _ROUNDS,
        """            self._is_syncing = True
            await self._storage.sync()
""",
        """            self._is_syncing = True
            self._speak(effects)
            effects = []
            await self._storage.sync()
""",
        "tests/broker/test_core.py::test_with_fsync_always_nothing_is_said_before_the_sync",
    ),
    Mutant(
        "who comes during a sync is answered by a quick one, past those who wait",
        _ROUNDS,
        "is_alone = not (self._is_syncing or self._unsynced) and len(effects) <= _FEW_EFFECTS",
        "is_alone = len(effects) <= _FEW_EFFECTS",
        _TEST_CORE,
    ),
    Mutant(
        "after a failed write in a reader's task the broker goes on",
        _ROUNDS,
        """            self._failure = error
            self.wake()""",
        """            pass""",
        "tests/broker/test_core.py::test_after_a_failed_write_or_sync_nothing_is_confirmed_and_the_broker_stops",
    ),
    Mutant(
        "with fsync everysec nothing is synced",
        "broker/telpher_broker/persist.py",
        """            if storage.synced_record < storage.next_record:
                await storage.sync()""",
        """            pass""",
        _TEST_CORE,
    ),
    Mutant(
        "a snapshot is of a later moment than the cut of the log",
        "broker/telpher_broker/persist.py",
        """            upto = self._storage.cut()
            frozen = self._engine.freeze()""",
        """            upto = self._storage.cut()
            await trio.sleep(0.05)
            frozen = self._engine.freeze()""",
        "tests/broker/test_core.py::test_a_snapshot_and_the_rest_of_the_log_are_the_state_that_was",
    ),
    Mutant(
        "an orderly stop leaves no mark of where the log ends",
        "broker/telpher_broker/persist.py",
        "self._storage.close, True)",
        "self._storage.close, False)",
        "tests/daemon/test_process.py::test_an_orderly_stop_is_clean",
    ),
    # -- the clock and the heartbeats
    Mutant(
        "time goes by the wall clock",
        _ROUNDS,
        "        return self._wall_ms + int((trio.current_time() - self._began) * 1000)",
        "        return time.time_ns() // 1_000_000",
        "tests/broker/test_clock.py",
    ),
    Mutant(
        "a wall clock that went back holds time still",
        _ROUNDS,
        "return max(wall_ms, newest_ms)",
        "return wall_ms",
        _TEST_CORE,
    ),
    Mutant(
        "a silent peer is kept",
        _WATCH,
        "due = connection.heard_at + 2 * connection.heartbeat_seconds",
        "due = connection.heard_at + 20 * connection.heartbeat_seconds",
        _TEST_CORE,
    ),
    Mutant(
        "who has heard nothing for long is not pinged",
        _WATCH,
        "now - connection.spoke_at > connection.heartbeat_seconds / 2:",
        "now - connection.spoke_at > connection.heartbeat_seconds * 9:",
        "tests/broker/test_core.py::test_who_hears_nothing_else_hears_a_ping_each_half_heartbeat",
    ),
    Mutant(
        "who could not be heard while the broker was stopped is taken for silent",
        _WATCH,
        "            self._forgive(now - due)",
        "            pass",
        "tests/broker/test_core.py::test_while_the_broker_itself_is_stopped_nobody_is_silent",
    ),
    Mutant(
        "a connection that breaks is not told to the engine",
        _CORE,
        """            self._rounds.put(connection.number, Gone(orderly))
""",
        "",
        _TEST_CORE,
    ),
    Mutant(
        "a send overtakes one that is unfinished",
        "broker/telpher_broker/connection.py",
        "rest = said if self._unsent or self._fd < 0 else self._write(said)",
        "rest = said if self._fd < 0 else self._write(said)",
        "tests/broker/test_connection.py",
    ),
    # -- the client's half
    Mutant(
        "the client sends no PING",
        _SESSION,
        "elif now >= self._last_sent + heartbeat_seconds / 2:",
        "elif now >= self._last_sent + heartbeat_seconds * 9:",
        "tests/client/test_session_life.py",
    ),
    Mutant(
        "the client does not notice a silent broker",
        _SESSION,
        "elif now >= self._last_heard + heartbeat_seconds * 2:",
        "elif now >= self._last_heard + heartbeat_seconds * 20:",
        "tests/client/test_session_life.py",
    ),
    Mutant(
        "a batch that is sent again has another number",
        _WINDOW,
        "self.number, window.channel, window.producer, self.sequence, self.confirm, self.batch",
        "self.number, window.channel, window.producer, window.next_sequence(), self.confirm, "
        "self.batch",
        "tests/client/test_session_publish.py",
    ),
    Mutant(
        "what was in flight when the connection broke is not sent again",
        _WINDOW,
        "        self.waiting.extendleft(reversed(self.flying.values()))\n",
        "",
        "tests/client/test_session_publish.py",
    ),
    # -- who may come in, and do what
    Mutant(
        "the client's proof is not compared",
        _SCRAM,
        "if not compare_digest(sha256(client_key).digest(), keys.stored):",
        "if not client_key and keys.stored is None:",
        _TEST_DOOR,
    ),
    Mutant(
        "a proof for another challenge is accepted",
        _SCRAM,
        "if match is None or match[2] != self._nonce:",
        "if match is None:",
        "tests/protocol/test_scram.py::test_a_proof_does_not_work_twice",
    ),
    Mutant(
        "the client does not check the broker's proof",
        _SESSION,
        "if self._login is not None and not self._login.is_proved:",
        "if self._login is None:",
        "tests/client/test_login.py",
    ),
    Mutant(
        "who has no credentials comes in although there are users",
        _DOOR,
        "if not connection.is_trusted and (self._is_required or self._security.users):",
        "if not connection.is_trusted and self._is_required:",
        _TEST_DOOR,
    ),
    Mutant(
        "an expired token comes in",
        _DOOR,
        "if token is None or (token.expires_ms or now_ms + 1) <= now_ms:",
        "if token is None:",
        _TEST_DOOR,
    ),
    Mutant(
        "a credential that is revoked during the handshake comes in",
        _DOOR,
        "if claim.identity is None or not self._is_current(claim):",
        "if claim.identity is None:",
        _TEST_DOOR,
    ),
    Mutant(
        "failures are not counted, and guessing costs no time",
        "broker/telpher_broker/throttle.py",
        "failures = failures * math.exp2((since - now) / HALF_LIFE_SECONDS) + change",
        "failures = 0.0",
        "tests/broker/test_throttle.py",
    ),
    Mutant(
        "a permission is not asked for",
        _ACCESS,
        "    if session.user is None or may(turn, session, permission, name):\n        return",
        "    if session is not None:\n        return",
        _TEST_ACCESS,
    ),
    Mutant(
        "a name of another namespace is reached",
        _ACCESS,
        '    if "/" in name:\n        raise Refusal("bad_name"',
        '    if "//" in name:\n        raise Refusal("bad_name"',
        _TEST_ACCESS,
    ),
    Mutant(
        "verbs that are in no table need no administrator",
        _ACCESS,
        """    if needs is None:
        require_admin(turn, session)
        return arguments""",
        """    if needs is None:
        return arguments""",
        "tests/engine/test_security.py::test_a_verb_that_is_in_no_table_is_for_administrators",
    ),
    Mutant(
        "the name that dead letters are published to needs no permission",
        _ACCESS,
        '            _name_in_full(turn, session, PUBLISH, full["config"], name)',
        '            _name_in_full(turn, session, _NAMED, full["config"], name)',
        _TEST_ACCESS,
    ),
)

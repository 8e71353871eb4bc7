"""The table of options: each declared once, with its type, default, bounds and help.

Everything else is derived from here: the configuration file's keys, the environment variables, the
flags of `telpher serve`, `docs/configuration.md` and what `telpher config` prints. Units stand last
in a name (`lease_ms`), before `_max` where there is one (`frame_bytes_max`).
"""

# ruff: noqa: RUF009 - these calls make fields, as dataclasses.field() does

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from . import values
from .values import Address, Kind, SaveRule

T = TypeVar("T")

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
DAY_SECONDS: Final = 86_400
# What a frame may hold beside the batch that it carries, so that what was published fits into a
# delivery, whatever its offset and attempt.
FRAME_OVERHEAD_BYTES: Final = 1024


def _option(group: str, kind: Kind[T], default: T, help: str) -> T:
    """A field of `Settings`, with what else there is to say about it in its metadata."""
    declared: T = field(default=default, metadata={"group": group, "kind": kind, "help": help})
    return declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective value of every option. `config.load()` makes one; defaults hold in tests."""

    listen: tuple[Address, ...] = _option(
        "Listening",
        values.addresses(),
        (Address("127.0.0.1", 7400),),
        "TCP addresses to listen on. Empty: none, if there is a Unix socket.",
    )
    unix_socket: Path | None = _option(
        "Listening",
        values.socket_path(),
        None,
        "Unix socket to listen on; only this user may connect (mode 0600).",
    )
    insecure_listen: bool = _option(
        "Listening",
        values.switch(),
        False,
        "Allow addresses that other machines can reach without TLS or without authentication: who "
        "reaches the port may then read everything, or do everything.",
    )
    tls_cert: Path | None = _option(
        "Listening",
        values.file(),
        None,
        "The broker's certificate, with those that it was signed by, in PEM; TCP speaks TLS then.",
    )
    tls_key: Path | None = _option(
        "Listening", values.file(), None, "Its key, in PEM, if it is not in the same file."
    )
    tls_client_ca: Path | None = _option(
        "Listening",
        values.file(),
        None,
        "The authority whose certificates clients may show, in PEM. Who has one that a user is "
        "given by its subject need not authenticate otherwise.",
    )
    tls_client_crl: Path | None = _option(
        "Listening",
        values.file(),
        None,
        "Revocation lists of tls_client_ca and of each authority between it and the clients, in "
        "PEM; a certificate that is in one, or whose authority has no list here that still holds, "
        "is refused. Read anew on SIGHUP.",
    )
    tls_min_version: str = _option(
        "Listening",
        values.choice("1.2", "1.3"),
        "1.2",
        "The oldest version of TLS that is spoken.",
    )
    authentication: str = _option(
        "Listening",
        values.choice("auto", "required"),
        "auto",
        "Who must authenticate: everybody as soon as there is a user (auto), or everybody from the "
        "start (required).",
    )
    trust_unix_socket: bool = _option(
        "Listening",
        values.switch(),
        False,
        "Let who comes to the Unix socket as the daemon's own system user, or as root, do "
        "everything without a password: for the first user, and for forgotten passwords.",
    )
    data_dir: Path = _option(
        "Durability",
        values.directory(),
        Path("telpher-data"),
        "Directory of the data; made if it is missing (mode 0700).",
    )
    persistence: str = _option(
        "Durability",
        values.persistence(),
        "aof+rdb",
        "What is on the disk: nothing (none), snapshots (rdb), a log of everything (aof), or a "
        "log that starts from a snapshot (aof+rdb).",
    )
    fsync: str = _option(
        "Durability",
        values.choice("always", "everysec", "no"),
        "everysec",
        "When the log is forced to the disk: before every confirm (always), once a second "
        "(everysec), or when the system likes (no). A publish may ask for more than that.",
    )
    save: tuple[SaveRule, ...] = _option(
        "Durability",
        values.save_rules(),
        (SaveRule(900, 1), SaveRule(300, 1000), SaveRule(60, 100_000)),
        "With rdb and aof+rdb: write a snapshot when so many seconds have passed and so many "
        "changes gathered; any rule will do. With aof+rdb only when the log has gathered half as "
        "many bytes as its live content has.",
    )
    rewrite_growth_percent: int = _option(
        "Durability",
        values.percent(0, 100_000),
        65,
        "With aof and aof+rdb: rewrite the log when it has outgrown its live content by so much; "
        "0: only on demand.",
    )
    rewrite_min_bytes: int = _option(
        "Durability",
        values.size(0, 1024 * GIB),
        64 * MIB,
        "With aof and aof+rdb: leave a log alone that has gathered less than this "
        "since its last snapshot.",
    )
    reserve_bytes: int = _option(
        "Durability",
        values.size(0, 64 * GIB),
        32 * MIB,
        "Disk space kept back, so that consuming and acknowledging go on when the disk is full.",
    )
    retired_log_bytes: int = _option(
        "Durability",
        values.size(0, 1024 * GIB),
        0,
        "How much of the log stays in the data directory when a rewrite has retired it, so that "
        "`telpher backup` still finds what it has not copied, and there is no gap in the points "
        "that can be restored. The oldest goes first, and all of it when the disk is full.",
    )
    memory_limit: int = _option(
        "Limits",
        values.size(0, 1024 * GIB),
        GIB,
        "How many bytes of waiting batches stay in memory. With aof and aof+rdb, what comes on top "
        "is read back from the log when it is delivered (batches under 1 KiB stay in memory all "
        "the same); without a log, everything stays.",
    )
    memory_high_bytes: int = _option(
        "Limits",
        values.size(0, 1024 * GIB),
        0,
        "Resident memory at which an alarm is raised and publishes stop; consuming goes on. "
        "memory_limit is at most half of it. 0: six tenths of what the machine or the control "
        "group has.",
    )
    memory_low_bytes: int = _option(
        "Limits",
        values.size(0, 1024 * GIB),
        0,
        "Resident memory at which that alarm is cleared. 0: four fifths of memory_high_bytes.",
    )
    disk_free_low_bytes: int = _option(
        "Limits",
        values.size(0, 1024 * 1024 * GIB),
        0,
        "Free disk at which an alarm is raised and publishes stop; consuming goes on. 0: at the "
        "reserve only, when reserve_bytes are left.",
    )
    disk_free_high_bytes: int = _option(
        "Limits",
        values.size(0, 1024 * 1024 * GIB),
        0,
        "Free disk at which that alarm is cleared. 0: a quarter above disk_free_low_bytes.",
    )
    when_full: str = _option(
        "Limits",
        values.choice("refuse", "wait"),
        "refuse",
        "What a publish does during an alarm: it is refused with memory_full or disk_full, or "
        "waits for the end of it, as far as waiting_bytes_max goes.",
    )
    frame_bytes_max: int = _option(
        "Limits", values.size(64 * KIB, GIB), 16 * MIB, "The largest frame that is accepted."
    )
    message_bytes_max: int = _option(
        "Limits",
        values.size(1, GIB),
        4 * MIB,
        "The largest body of a message; a little less than frame_bytes_max at most.",
    )
    batch_messages_max: int = _option(
        "Limits", values.number(1, 1_000_000), 10_000, "The most messages in one batch."
    )
    connections_max: int = _option(
        "Limits",
        values.number(1, 1_000_000),
        10_000,
        "The most connections at once; further ones are turned away.",
    )
    strangers_max: int = _option(
        "Limits",
        values.number(1, 1_000_000),
        1000,
        "The most connections at once that have not said who they are; beyond it the oldest of "
        "them are dropped.",
    )
    strangers_per_address_max: int = _option(
        "Limits",
        values.number(1, 1_000_000),
        250,
        "The same for one address; IPv6 addresses are taken together by their network (/64).",
    )
    connections_per_user_max: int = _option(
        "Limits",
        values.number(1, 1_000_000),
        10_000,
        "The most connections of one user at once.",
    )
    channels_max: int = _option(
        "Limits", values.number(1, 100_000_000), 1_000_000, "The most channels."
    )
    exchanges_max: int = _option(
        "Limits", values.number(1, 1_000_000), 10_000, "The most exchanges."
    )
    bindings_max: int = _option(
        "Limits",
        values.number(1, 100_000_000),
        10_000_000,
        "The most bindings, over all exchanges.",
    )
    consumers_per_connection_max: int = _option(
        "Limits", values.number(1, 1_000_000), 2000, "The most consumers on one connection."
    )
    subscriptions_per_channel_max: int = _option(
        "Limits", values.number(1, 1_000_000), 10_000, "The most subscriptions of one topic."
    )
    prefetch_max: int = _option(
        "Limits",
        values.number(1, 1_000_000),
        1_000_000,
        "The largest prefetch a consumer may ask for, in messages.",
    )
    transaction_publishes_max: int = _option(
        "Limits",
        values.number(1, 10_000),
        1000,
        "The most batches that one transaction may publish; its bytes are bounded as a frame's.",
    )
    dedup_ids_max: int = _option(
        "Limits",
        values.number(1, 1_000_000_000),
        10_000_000,
        "The most dedup ids one channel remembers; each takes about 200 bytes and its own length.",
    )
    producers_max: int = _option(
        "Limits",
        values.number(1000, 100_000_000),
        100_000,
        "The most producers that are remembered, so that a batch that one sends again is stored "
        "once; each takes about 500 bytes. Beyond it, who has not published for the longest is "
        "forgotten before producer_expiry_seconds are over.",
    )
    ephemeral_backlog_bytes: int = _option(
        "Limits",
        values.size(64 * KIB, 64 * GIB),
        64 * MIB,
        "How far an ephemeral subscription may lag before it misses messages.",
    )
    output_bytes_max: int = _option(
        "Limits",
        values.size(64 * KIB, 4 * GIB),
        4 * MIB,
        "What may wait to be sent to one connection; deliveries to it pause above this.",
    )
    output_bytes_total: int = _option(
        "Limits",
        values.size(64 * KIB, 64 * GIB),
        256 * MIB,
        "What may wait to be sent to all connections together, a quarter of it answers. Above half "
        "of what is for deliveries, they pause to those that have more waiting than their share of "
        "what is left; beyond it, who has nothing waiting gets 16 KiB at a time; what is larger "
        "waits for room in turns.",
    )
    input_bytes_max: int = _option(
        "Limits",
        values.size(64 * KIB, 16 * GIB),
        64 * MIB,
        "What may be gathered from all connections for one block and its sync, and, apart from "
        "that, what unfinished frames may hold: above it reading pauses, and connections are "
        "closed, first those that have held the most for the longest.",
    )
    waiting_bytes_max: int = _option(
        "Limits",
        values.size(64 * KIB, 4 * GIB),
        32 * MIB,
        "What one connection may have waiting for room or a quota; publishes beyond are refused.",
    )
    waiting_bytes_total: int = _option(
        "Limits",
        values.size(64 * KIB, 16 * GIB),
        256 * MIB,
        "What all connections together may have waiting for room or a quota.",
    )
    create_channels: str = _option(
        "Behaviour",
        values.choice("declared", "queue", "topic"),
        "queue",
        "What the first use of an unknown channel makes of it; declared: refuse it.",
    )
    heartbeat_ms: int = _option(
        "Behaviour",
        values.milliseconds(5000, 120_000),
        30_000,
        "The heartbeat of clients that propose none; a silent peer is dropped after two.",
    )
    open_timeout_ms: int = _option(
        "Behaviour",
        values.milliseconds(100, 60_000),
        5000,
        "How long a new connection may take to introduce itself.",
    )
    lease_ms: int = _option(
        "Behaviour",
        values.milliseconds(1000, 86_400_000),
        60_000,
        "How long a delivery may stay unsettled, unless the consumer asks otherwise.",
    )
    resume_ms: int = _option(
        "Behaviour",
        values.milliseconds(0, 600_000),
        1000,
        "How long the leases of a broken connection wait for its consumer to come back.",
    )
    producer_expiry_seconds: int = _option(
        "Behaviour",
        values.seconds(60, 3650 * DAY_SECONDS),
        7 * DAY_SECONDS,
        "How long a producer that publishes nothing is remembered.",
    )
    drain_seconds: int = _option(
        "Behaviour",
        values.seconds(0, 3600),
        10,
        "How long an orderly stop waits for clients to settle what they hold.",
    )
    log_level: str = _option(
        "Logs",
        values.choice("debug", "info", "warning", "error"),
        "info",
        "What is logged. Read anew on SIGHUP.",
    )
    audit_log: Path | None = _option(
        "Logs",
        values.file(),
        None,
        "File that gets a line for each login, refusal and administrative act (mode 0600); opened "
        "anew on SIGHUP if it was moved away. A - means among the other log lines, whatever "
        "log_level is.",
    )
    log_format: str = _option(
        "Logs",
        values.choice("auto", "human", "json"),
        "auto",
        "How: for people (human), for machines (json), or as suits standard error (auto).",
    )

    @property
    def may_be_reached(self) -> bool:
        """Whether an address may be one that other machines can reach."""
        is_secure = self.tls_cert is not None and self.authentication == "required"
        return self.insecure_listen or is_secure


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    name: str
    group: str
    kind: Kind[Any]
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "TELPHER_" + self.name.upper()


OPTIONS: Final[tuple[Option, ...]] = tuple(
    Option(row.name, row.metadata["group"], row.metadata["kind"], row.default, row.metadata["help"])
    for row in fields(Settings)
)
BY_NAME: Final[dict[str, Option]] = {option.name: option for option in OPTIONS}

"""Run programmes: `python -m tests.torture [NAME ...] [--short] [--size N] [--seed N] ...`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench.process import family
from telpher_broker import logs

from .book import record
from .programme import Outcome, Programme, all_programmes, carry_out


@contextmanager
def alone_at_the_end() -> Iterator[None]:
    """End what was started, daemons above all, however this process ends: by SIGTERM as by
    Ctrl-C."""
    # A shell's background job comes with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for pid in family(os.getpid())[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main(arguments: list[str] | None = None) -> int:
    """Run what is named, or everything; 1 if anything was violated or broke."""
    known = all_programmes()
    options = _parser(known).parse_args(arguments)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"no programme {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in options.names] or list(known.values())
    return max([_one(programme, options) for programme in chosen], default=0)


def _parser(known: dict[str, Programme]) -> argparse.ArgumentParser:
    names = "\n".join(
        f"  {programme.name:16} {programme.title} (short {programme.short:,}, "
        f"long {programme.long:,} {programme.unit})"
        for programme in known.values()
    )
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description="Try the promises of docs/guarantees.md, at length.",
        epilog=f"programmes:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="programmes; all if none is named")
    parser.add_argument("--short", action="store_true", help="the sizes of `make check`")
    parser.add_argument("--size", type=int, help="so many of the programme's units")
    parser.add_argument("--seed", type=int, default=1, help="what the run is made from (1)")
    parser.add_argument("--record", action="store_true", help="keep the figures for the page")
    return parser


def _one(programme: Programme, options: argparse.Namespace) -> int:
    lack = programme.missing()
    if lack is not None:
        print(f"{programme.id:4} {programme.name:17} SKIPPED, not proven: {lack}", flush=True)
        return 0
    size = options.size or (programme.short if options.short else programme.long)
    try:
        outcome: Outcome = carry_out(programme, size, options.seed)
    except Exception:  # noqa: BLE001 - one that breaks must not keep the others from running
        traceback.print_exc()
        print(f"{programme.id:4} {programme.name:17} BROKE, seed {options.seed}", flush=True)
        return 1
    print(outcome.line(), flush=True)
    if outcome.figures.violations:
        return 1
    if options.record:
        record(outcome)
    return 0


if __name__ == "__main__":
    # A broker in this process has much to say of what is done to it: one line is for the figures.
    logs.configure("error", "json", io.StringIO())
    with alone_at_the_end():
        sys.exit(main())

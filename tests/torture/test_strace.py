"""What strace writes, read: which storage calls there were, and when one was made to fail."""

from __future__ import annotations

from pathlib import Path

from .strace import Call, calls_under, injected_at

DATA = Path("/tmp/data")

# As `strace -f -y -ttt -o FILE` writes it.
WATCHED = """\
17 1764115000.100000 openat(AT_FDCWD</me>, "/tmp/data/lock", O_RDWR, 0600) = 5</tmp/data/lock>
17 1764115000.100100 write(5</tmp/data/lock>, "17\\n", 3) = 3
17 1764115000.100200 write(1</tmp/other>, "data", 4) = 4
17 1764115000.100300 fdatasync(6</tmp/data/increment-0000000001> <unfinished ...>
18 1764115000.100400 write(5</tmp/data/lock>, "18\\n", 3) = 3
17 1764115000.100500 <... fdatasync resumed>) = 0
17 1764115000.100600 write(5</tmp/data/lock>, "19\\n", 3) = 3
17 1764115000.100700 rename("/tmp/data/manifest.new", "/tmp/data/manifest") = 0
17 1764115000.100800 fsync(7</tmp/data>) = 0
17 1764115000.100900 unlink("/tmp/data.old/lock") = 0
17 1764115000.101000 +++ exited with 0 +++
"""


def test_calls_are_counted_by_file_and_for_the_busiest_thread(tmp_path: Path) -> None:
    output = tmp_path / "trace"
    output.write_text(WATCHED)
    assert calls_under(output, DATA) == [
        Call("openat", DATA / "lock", 1),
        Call("write", DATA / "lock", 2),
        Call("fdatasync", DATA / "increment-0000000001", 1),
        Call("rename", DATA / "manifest.new", 1),
        Call("fsync", DATA, 1),
    ]


def test_a_failure_that_was_injected_is_found_with_its_time(tmp_path: Path) -> None:
    output = tmp_path / "trace"
    failed = "17 1764115000.2 write(5, ..., 3) = -1 EIO (Input/output error) (INJECTED)\n"
    output.write_text(f"{failed}17 1764115000.3 +++ exited with 7 +++\n")
    assert injected_at(output) == 1764115000.2
    output.write_text("17 1764115000.3 +++ exited with 0 +++\n")
    assert injected_at(output) is None

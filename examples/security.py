"""A broker with users: turned on, a program with a token and what it may do, and what it may not.

python examples/security.py       (starts a broker of its own, in a temporary directory)
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import telpher
from telpher.sync import connect


@contextmanager
def broker() -> Iterator[str]:
    """A broker on a Unix socket; its URL."""
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        options = ["--listen", "", "--unix-socket", f"{directory}/socket"]
        options += ["--data-dir", f"{directory}/data"]
        command = [sys.executable, "-m", "telpher_broker", "serve", *options]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it is ready
            try:
                yield f"telpher+unix://{directory}/socket"
            finally:
                process.terminate()


# Ended by SIGTERM it ends as by Ctrl-C, and takes the broker with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
with broker() as url:
    with connect(url) as bus:  # nobody has to authenticate yet
        bus.add_user("root", "correct horse battery staple", first=True)

    try:
        with connect(url):
            pass
    except telpher.AuthenticationFailed:
        print("a stranger is turned away")

    with connect(url, user="root", password="correct horse battery staple") as root:
        root.declare("orders.eu")
        root.add_user("shop")  # no password: it comes in by tokens only
        root.grant("shop", "publish", "orders.#")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        token = root.create_token("shop", "till-7", expires=tomorrow)

        with connect(url, token=token) as shop:
            print("published at offset", shop.publish("orders.eu", b"two teas").offset)
            try:
                with shop.consume("orders.eu"):
                    pass
            except telpher.Forbidden as error:
                print(error)

            root.revoke_token("shop", "till-7")  # gone at once
            try:
                shop.publish("orders.eu", b"and a cake")
            except telpher.AuthenticationFailed:
                print("the token is no more")

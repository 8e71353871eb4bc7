"""Take orders into a database and tell of them, with an outbox; handle each once, with an inbox.

python examples/outbox.py
"""

import sqlite3

from telpher import inbox, outbox
from telpher.sync import connect

QUEUE = "example.outbox"


def take(database: sqlite3.Connection, customer: str, cents: int) -> None:
    """An order, and what is to be said of it: both or neither."""
    with database:
        database.execute("INSERT INTO orders VALUES (?, ?)", (customer, cents))
        outbox.add(database, QUEUE, b"%d" % cents, key=customer)
        if cents < 0:
            raise ValueError("no such amount")


def handle(database: sqlite3.Connection, message) -> None:
    """Book an amount, once, however often the message comes."""
    with database:
        if not inbox.is_new(database, message):
            print(f"{message.key}: handled already")
            return
        row = (int(message.body), message.key)
        database.execute("UPDATE accounts SET cents = cents + ? WHERE customer = ?", row)
        print(f"{message.key}: booked {int(message.body)}")


database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE orders (customer TEXT, cents INTEGER)")
database.execute("CREATE TABLE accounts (customer TEXT, cents INTEGER)")
database.executemany("INSERT INTO accounts VALUES (?, 0)", [("ada",), ("bob",)])
outbox.create_tables(database)
inbox.create_tables(database)
database.commit()

with connect() as bus:
    bus.declare(QUEUE)
    bus.purge(QUEUE)
    take(database, "ada", 500)
    take(database, "bob", 300)
    try:
        take(database, "bob", -1)
    except ValueError as error:
        print("not taken:", error)

    relay = outbox.Relay(database, sync_bus=bus)
    while relay.run_sync():
        pass

    for message in bus.fetch(QUEUE, max=10, wait=2):
        handle(database, message)
        message.nack()  # as if the ack had been lost
    again = bus.fetch(QUEUE, max=10, wait=2)
    for message in again:
        with message:
            handle(database, message)
    again.flush()
    bus.delete(QUEUE)

print(database.execute("SELECT customer, cents FROM accounts ORDER BY customer").fetchall())

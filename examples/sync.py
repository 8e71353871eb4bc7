"""The same without await: publish, then work in this thread.

python examples/sync.py
"""

from telpher.sync import connect

with connect() as bus:
    bus.declare("letters")
    with bus.producer("letters") as producer:
        for letter in "telpher":
            producer.send(letter.encode(), headers={"upper": letter.upper()})

    with bus.consume("letters") as messages:
        for message in messages:
            with message:
                print(message.offset, message.body.decode(), message.headers["upper"])
            if message.body == b"r":
                break

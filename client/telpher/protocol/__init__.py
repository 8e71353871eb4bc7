"""The wire protocol, which both ends share: bytes in, frames out, and no I/O.

`docs/protocol.md` is the specification and was written first; this package is its one
implementation, used by the client and by the broker alike:

- `frames`: every frame as a named tuple, with its number and the types of its fields;
- `codec`: frames to bytes and back, with every limit checked before memory is spent;
- `connection`: which frame may come when, for either side;
- `batch`: the columns in which messages travel, are stored and are delivered;
- `names`: what a channel or a subscription may be called;
- `errors`: the two faults of a conversation, and the codes of a refusal.
"""

"""The client's side of a conversation with no I/O: pure state, with time and tokens as inputs.

A `Session` outlives its connections. It knows what was asked and not answered, what was published
and not confirmed, and what is leased; so after a broken connection it says again exactly what must
be said. The shell (`telpher.bus`, `telpher.link`) moves its bytes and tells it the time.

- `session`: one connection after another, heartbeats, and which answer belongs to whom;
- `exchange`: a request until its answer;
- `window`: one producer's unconfirmed batches, in order;
- `consumer`: one consumer's deliveries, leases and gathered acknowledgements;
- `delivery`: one delivered batch, decoded when it is looked at;
- `ranges`: sets of offsets;
- `backoff`: how long to wait before the next attempt.
"""

from .session import Session

__all__ = ["Session"]

"""Why there is no connection yet: what came of the last try at each host, for who gives up."""

from __future__ import annotations

from typing import NamedTuple


class Trouble(NamedTuple):
    """What came of a try. `is_answer`: somebody was there; `is_final`: another try is no use."""

    text: str
    is_answer: bool = False
    is_final: bool = False


class Troubles:
    """The last trouble of each host that there is one of."""

    def __init__(self, hosts: int) -> None:
        self._hosts = hosts
        self._found: dict[str, Trouble] = {}

    def note(self, host: str, trouble: Trouble) -> None:
        """What came of the last try at a host."""
        self._found[host] = trouble

    def note_timeout(self, host: str, seconds: float, *, is_cut_short: bool) -> None:
        """Nothing came in time; of a try that had little of it, an earlier one tells more."""
        if not (is_cut_short and host in self._found):
            self.note(host, Trouble(f"no connection within {seconds:.3g} s"))

    def forget(self) -> None:
        """What came before a connection that was open says nothing of the next."""
        self._found.clear()

    @property
    def are_final(self) -> bool:
        """Whether another try would end the same with every host."""
        found = self._found.values()
        return len(found) == self._hosts and all(one.is_final for one in found)

    def told(self, seconds: float) -> str:
        """All of it for people, after so many seconds."""
        reasons = "; ".join(f"{host}: {one.text}" for host, one in self._found.items())
        if self.are_final:
            return f"cannot connect: {reasons}"
        if any(one.is_answer for one in self._found.values()):
            return f"no broker took the connection within {seconds:.3g} s ({reasons})"
        return f"no broker answered within {seconds:.3g} s ({reasons}); is one running there?"

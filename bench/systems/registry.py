"""Every system by its name."""

from __future__ import annotations

from .beanstalkd import Beanstalkd
from .limit import Limit
from .nats import Nats
from .rabbitmq import RabbitMQ
from .redis import Redis
from .system import System
from .telpher import Telpher

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (Telpher(), Limit(), Redis(), RabbitMQ(), Nats(), Beanstalkd())
}
PEERS = tuple(name for name in SYSTEMS if name != "telpher")

"""Administration without await: the names of `telpher.admin`, a file for each noun."""

from __future__ import annotations

from .broker import BrokerAdministration
from .channels import ChannelAdministration
from .delays import DelayAdministration
from .exchanges import ExchangeAdministration
from .explain import ExplainAdministration
from .keys import KeyAdministration
from .letters import LetterAdministration
from .partitions import PartitionAdministration
from .quotas import QuotaAdministration
from .schedules import ScheduleAdministration
from .schemas import SchemaAdministration
from .users import UserAdministration


class Administration(
    ChannelAdministration,
    ExchangeAdministration,
    PartitionAdministration,
    DelayAdministration,
    KeyAdministration,
    LetterAdministration,
    QuotaAdministration,
    ScheduleAdministration,
    SchemaAdministration,
    ExplainAdministration,
    UserAdministration,
    BrokerAdministration,
):
    """The rare verbs; a Bus has them all."""

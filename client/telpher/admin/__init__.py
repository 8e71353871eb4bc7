"""Administration: one method for each verb of the protocol, a file for each noun.

`told` has what the broker answers, as objects. `telpher/sync/admin` has the same without await.
"""

from __future__ import annotations

from .broker import BrokerAdministration
from .channels import ChannelAdministration
from .delays import DelayAdministration
from .exchanges import ExchangeAdministration
from .explain import ExplainAdministration
from .explain import Explanation as Explanation
from .explain import Standing as Standing
from .keys import KeyAdministration
from .keys import KeyInfo as KeyInfo
from .letters import LetterAdministration
from .letters import LetterGroup as LetterGroup
from .letters import TransferInfo as TransferInfo
from .partitions import PartitionAdministration
from .partitions import PartitionedInfo as PartitionedInfo
from .quotas import QuotaAdministration
from .schedules import ScheduleAdministration
from .schemas import SchemaAdministration
from .schemas import SchemaProblem as SchemaProblem
from .schemas import SchemaVersion as SchemaVersion
from .told import BindingInfo as BindingInfo
from .told import Browsed as Browsed
from .told import ChannelInfo as ChannelInfo
from .told import ExchangeInfo as ExchangeInfo
from .told import QuotaInfo as QuotaInfo
from .told import QuotaLevel as QuotaLevel
from .told import Start as Start
from .told import SubscriptionInfo as SubscriptionInfo
from .told import start_value as start_value
from .users import NamespaceInfo as NamespaceInfo
from .users import Permission as Permission
from .users import TokenInfo as TokenInfo
from .users import UserAdministration
from .users import UserInfo as UserInfo


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
    """The rare verbs; a Bus has them all. Each raises Refused, by subclass for each reason."""

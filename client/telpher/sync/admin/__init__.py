"""Administration without await: the names of `telpher.admin`, a file for each noun."""

from __future__ import annotations

from .broker import BrokerAdministration
from .channels import ChannelAdministration
from .exchanges import ExchangeAdministration


class Administration(ChannelAdministration, ExchangeAdministration, BrokerAdministration):
    """The rare verbs; a Bus has them all."""

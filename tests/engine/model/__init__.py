"""The broker as one would explain it: dicts, one object for each message, no ranges, no indexes.

`Model` is told each command and then everything that the engine said, round by round. It does
not guess which of several competing consumers gets a message; it checks that who got it could
have it, that it was next in line, and that nobody who could have had more went without.
"""

from .broker import Model as Model
from .channels import Consumer as Consumer
from .limits import Quota as Quota
from .publishing import Refused as Refused
from .routing import Binding as Binding
from .routing import Exchange as Exchange
from .said import offsets_of as offsets_of
from .said import row_of as row_of
from .schedules import Schedule as Schedule

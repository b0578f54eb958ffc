"""What a server may fetch for others: addresses that a caller or a page named, and that are public.

`guarded` puts a transport behind the rules, `SiteTransport` all of it that does not go to a site of the operator;
`addresses` is pure.
"""

from tolmach.egress.addresses import Address, check_url, is_public
from tolmach.egress.allowed import Allowed
from tolmach.egress.guard import GuardedTransport, guarded
from tolmach.egress.own import SiteTransport

__all__ = ["Address", "Allowed", "GuardedTransport", "SiteTransport", "check_url", "guarded", "is_public"]

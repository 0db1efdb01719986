"""Proxies: ktlslab speaks to servers directly, and says so rather than pass one over in silence."""

from __future__ import annotations

import urllib.request
from typing import Any

from ktlslab.errors import ProxyError

_environment: Any = urllib.request  # its functions for proxies are known to all but the type checker


def refuse_proxy(host: str, without: str | None = None) -> None:
    """Raise ProxyError if the environment names a proxy for this host (https_proxy, all_proxy).

    `without` are hosts that need none, as in no_proxy, in whose place it stands.
    """
    named = _environment.getproxies_environment()
    if without is not None:
        named["no"] = without
    for scheme in ("https", "all"):
        if scheme in named and not _environment.proxy_bypass_environment(host, named):
            remedy = f"Go directly: set no_proxy={host}, or give --noproxy {host} (Client(proxies='ignore'))."
            answered = f"the environment names a proxy by {scheme}_proxy, and ktlslab speaks to servers directly"
            raise ProxyError(f"connecting to {host}", answered=answered, remedy=remedy)

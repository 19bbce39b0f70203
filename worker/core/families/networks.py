"""The networks of each family; each loads its libraries when it is first asked for."""

from __future__ import annotations

from worker.core.families.family import BaseFamily
from worker.core.families.network import Network


def network_of(family: BaseFamily) -> Network:
    """How the networks of a family are called."""
    if family is BaseFamily.ZIMAGE:
        from worker.core.families.zimage.network import ZImageNetwork

        return ZImageNetwork()
    if family is BaseFamily.KLEIN:
        from worker.core.families.klein.network import KleinNetwork

        return KleinNetwork()
    from worker.core.families.stable_diffusion.network import NETWORKS

    return NETWORKS[family]

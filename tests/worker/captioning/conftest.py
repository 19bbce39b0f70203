from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.caption_servers import CaptionServer, caption_server


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    with caption_server() as running:
        yield running

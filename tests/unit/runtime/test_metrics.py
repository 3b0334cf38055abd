"""Can the page of metrics be rendered while another thread counts?"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from evenkeel_runtime.serve.metrics import Metrics

FEW, MANY = 1000, 1_000_000
PAGES = 100


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty")
def test_codes_and_reasons_that_come_while_a_page_is_rendered() -> None:
    """Far more than there are, so that one always comes at the wrong moment."""
    metrics = Metrics("m", "v1", has_triton_names=True)
    metrics.requests = dict.fromkeys(range(FEW), 1)
    done = threading.Event()

    def count() -> None:
        for code in range(FEW, MANY):
            if done.is_set():
                return
            metrics.requests[code] = metrics.rejected[f"http_{code}"] = 1
            time.sleep(0)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for _ in range(PAGES):
            page = metrics.render(0).decode()
            assert page.endswith("\n")
    finally:
        done.set()
        counting.join()

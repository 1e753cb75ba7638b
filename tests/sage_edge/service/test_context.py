"""What one plugin's inputs keep busy, another's do not wait for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from sage_edge import Settings
from tests.quadratic import QuadraticPlugin
from tests.sage_edge.service.conftest import Service
from tests.wire import post_vector, tensor_headers


class PonderingPlugin(QuadraticPlugin):
    """Prepares an input for as long as a test wants."""

    name = "pondering"

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.pondering = 0

    def prepare(self, x):
        self.pondering += 1
        self.may_go_on.wait(30)
        return super().prepare(x)


def test_inputs_that_take_long_to_prepare_hold_up_their_own_plugin_alone():
    plugin = PonderingPlugin()
    settings = Settings(slots=1, threads=1, queue_size=64, telemetry_dir="")
    with (
        Service({"pondering": plugin, "quadratic": QuadraticPlugin()}, settings) as service,
        ThreadPoolExecutor(32) as callers,
    ):
        plugin.pondering = 0
        plugin.may_go_on.clear()
        vector = np.full(6, 4, np.float32)
        url, headers = f"{service.url}/v1/refine/pondering", tensor_headers(vector)
        slow = [
            callers.submit(httpx.post, url, content=vector.tobytes(), headers=headers, timeout=30)
            for _ in range(32)
        ]
        service.wait_for(lambda: plugin.pondering >= 2)
        try:
            assert [post_vector(service.client).status_code for _ in range(10)] == [200] * 10
            assert service.client.get("/v1/telemetry").status_code == 200
        finally:
            plugin.may_go_on.set()
        assert {reply.result().status_code for reply in slow} == {200}

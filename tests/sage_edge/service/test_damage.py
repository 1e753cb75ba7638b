"""A picture with a hole, from the socket to the answer and the records."""

from __future__ import annotations

import base64

import httpx
import pytest

from tests.wire import as_image


def with_a_hole(jpeg):
    return jpeg[: len(jpeg) // 3] + jpeg[len(jpeg) // 2 :]


@pytest.fixture(scope="module")
def jpegs(nuclei_frame):
    whole = as_image(nuclei_frame, "JPEG")
    return whole, with_a_hole(whole)


def test_a_damaged_frame_is_answered_and_trusted_less_than_the_whole_one(service, jpegs):
    whole, holed = [service.client.post("/v1/refine/vision", content=jpeg).json() for jpeg in jpegs]
    assert whole["damage"] is None
    assert "Corrupt JPEG data" in holed["damage"]
    assert holed["trust"] < whole["trust"]


@pytest.mark.parametrize("accept", ["application/json", "image/png", "application/octet-stream"])
def test_every_form_of_the_answer_tells_the_damage(service, jpegs, accept):
    replies = [
        service.client.post("/v1/refine/vision", content=jpeg, headers={"Accept": accept}) for jpeg in jpegs
    ]
    assert "sage-damage" not in replies[0].headers
    assert "Corrupt JPEG data" in replies[1].headers["sage-damage"]
    assert float(replies[1].headers["sage-trust"]) == 0.0


def test_each_member_of_a_scene_tells_its_own_damage(service, jpegs):
    frames = [{"plugin": "vision", "frame": {"base64": base64.b64encode(jpeg).decode()}} for jpeg in jpegs]
    results = service.client.post("/v1/scenes", json={"members": frames}).json()["results"]
    assert [result["damage"] is None for result in results] == [True, False]


def test_an_answer_that_is_fetched_later_tells_the_damage(service, jpegs):
    posted = service.client.post(
        "/v1/refine/vision", content=jpegs[1], headers={"Prefer": "respond-async, wait=30"}
    )
    assert posted.status_code == httpx.codes.OK
    assert service.client.get(f"/v1/refine/{posted.json()['request_id']}").json()["damage"]

"""A page needs no network, its words are escaped, and its script gets the numbers of the drawing."""

import base64
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from drawn_scenes import INTRINSICS, cuboid
from PIL import Image

from trainer.drawing import Cameras, ObjectMark, PointCloud
from trainer.drawing.pages import PAGE_POINTS, render_page

EVIL = "</script><img src=x onerror=alert(1)>&\"'{{ 7 * 7 }}\u2028"


class Reader(HTMLParser):
    """Collects elements with their attributes, and the text of each."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_nothing_is_loaded_and_the_policy_allows_only_what_is_in_the_page(make):
    page = render_page(make())
    elements = Reader(page).elements
    addresses = [value for _, attrs in elements for name, value in attrs.items() if name in ("src", "href")]
    assert addresses and all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert not re.search(r"https?://|@import|url\(", page)
    (policy,) = [attrs["content"] for _, attrs in elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html.unescape(policy)
    assert not [attrs for _, attrs in elements if "style" in attrs], "the policy forbids style attributes"


def test_words_of_others_stay_words(make):
    marks = [ObjectMark(EVIL, np.ones((3, 2, 2), bool)), ObjectMark(EVIL, None, cuboid((0, 0, 3)), 0)]
    page = render_page(make(title=EVIL, notes=[EVIL], marks=marks, frame_names=[EVIL] * 3))
    tags = {tag for tag, attrs in Reader(page).elements if "onerror" in attrs}
    assert not tags and page.count("</script>") == 2 and "49" not in "".join(Reader(page).texts["h1"])
    assert EVIL in "".join(Reader(page).texts["h1"]) and data_of(page)["spaces"][0]["boxes"][0]["label"] == f"2 {EVIL}"


def test_frames_have_words_and_the_view_has_keys_and_a_summary(make):
    drawing = make()
    elements = Reader(render_page(drawing)).elements
    pictures = [attrs for tag, attrs in elements if tag == "img"]
    assert [entry["alt"] for entry in pictures][1] == "Frame 1: 2 the box: box."
    content = base64.b64decode(pictures[0]["src"].partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (320, 240)
    (view,) = [attrs for tag, attrs in elements if tag == "canvas"]
    assert view["tabindex"] == "0" and view["aria-label"] == "3D view of Two objects: 1 box, 3 cameras, 2 points."
    assert {attrs["data-do"] for tag, attrs in elements if tag == "button"} >= {"left", "nearer", "reset"}


def test_the_script_gets_boxes_cameras_and_points_in_metres(make, poses):
    (space,) = data_of(render_page(make(cameras=Cameras(INTRINSICS, poses))))["spaces"]
    lines = np.array(space["boxes"][0]["lines"])
    assert lines.shape == (12, 2, 3) and lines.reshape(-1, 3).mean(0) == pytest.approx((1, 3, 0))
    assert space["up"] == [0, 0, 1] and [camera["centre"][0] for camera in space["cameras"]] == [0, 1, 2]
    points = space["points"]
    steps = np.frombuffer(base64.b64decode(points["positions"]), "<u2").reshape(-1, 3)
    found = np.array(points["origin"]) + steps * points["step"]
    assert found == pytest.approx(np.array([[0, 2, 0], [2.5, 2, 0]]), abs=1e-3)
    assert list(base64.b64decode(points["colours"])) == [255, 0, 0, 0, 255, 0]


def test_a_page_of_regions_alone_has_no_view(make):
    page = render_page(make(marks=[ObjectMark("x", np.ones((3, 2, 2), bool))], points=None, cameras=None))
    assert "<canvas" not in page and "0, 1, 2" in page


def test_what_is_left_out_is_said(make):
    count = PAGE_POINTS + 10
    points = PointCloud(np.ones((count, 3)), np.zeros((count, 3), np.uint8), np.zeros(count, int))
    page = render_page(make(points=points))
    assert "100,000 of 100,010 points are shown." in page
    packed = data_of(page)["spaces"][0]["points"]["colours"]
    assert len(base64.b64decode(packed)) <= 3 * PAGE_POINTS
    many = render_page(make(frames=np.zeros((60, 8, 8, 3), np.uint8), marks=[], points=None, cameras=None))
    assert "48 of 60 frames are shown." in many and many.count("<img") == 48

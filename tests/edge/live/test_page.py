"""The page in a real browser, before a camera that runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from servers import free_port

from edge.live.token import Token

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'arcedge[dev]'")
CHROMIUM = os.environ.get("ARCEDGE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or its path in ARCEDGE_CHROMIUM"
)
expect = api.expect
expect.set_options(timeout=60_000)

NAME = "Ada Ærø 彩"
SECRET = "0123456789abcdef-secret"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens the page of a rig as visit(rig, path, **options of the browser); errors of its scripts fail the test."""
    contexts, problems = [], []

    def visited(rig: Any, path: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
        page.goto(rig.url + path)
        return page

    yield visited
    for context in contexts:
        context.close()
    assert not problems


def test_it_shows_boxes_names_people_strangers_and_health(rig: Any, visit: Any) -> None:
    page = visit(rig)
    known = page.locator('.face[data-state="known"]')
    expect(known).to_contain_text(NAME)
    expect(page.locator('.face[data-state="unknown"]')).to_contain_text("Unknown")
    # The person stands at (40, 120) of 480 by 320, 64 pixels wide; the box has to be there over the picture.
    picture, box = page.locator(".picture img").bounding_box(), known.bounding_box()
    scale = picture["width"] / 480
    assert (box["x"] - picture["x"]) / scale == pytest.approx(40, abs=6)
    assert (box["y"] - picture["y"]) / scale == pytest.approx(120, abs=6)
    assert box["width"] / scale == pytest.approx(64, abs=6)
    expect(page.locator("#people-list li")).to_contain_text([NAME])
    expect(page.locator("#people-list li .when")).to_have_text("here now")
    expect(page.locator("#strangers-list li")).to_have_count(1)
    expect(page.locator("#stages .stage").first).to_contain_text(re.compile(r"detect.*\d / .*\d ms"))
    expect(page.locator("#status")).to_have_text("Live")
    expect(page.locator("#facts")).to_contain_text("1 person, 1 face")
    # A source's name is text, whatever it holds.
    expect(page.locator(".about strong")).to_have_text("door <b>")
    for image in (page.locator("#people-list img"), page.locator("#strangers-list img"), page.locator(".picture img")):
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_labels_of_neighbours_do_not_cover_each_other(rig: Any, visit: Any, toy: Any) -> None:
    page = visit(rig, viewport={"width": 390, "height": 844})
    rig.camera.picture = toy.scene(480, 320, [(1, 150, 64), (2, 216, 64), (3, 282, 64), (4, 348, 64)])
    expect(page.locator('.face[data-state="unknown"]')).to_have_count(3)
    areas = page.evaluate(
        """() => [...document.querySelectorAll(".face span")]
            .filter((label) => getComputedStyle(label).visibility === "visible" && label.textContent)
            .map((label) => label.getBoundingClientRect().toJSON())"""
    )
    assert len(areas) >= 2
    for one, other in combinations(areas, 2):
        apart = one["right"] <= other["left"] or other["right"] <= one["left"]
        assert apart or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
    expect(page.locator('.face[data-state="known"] span')).to_be_visible()


def test_the_picture_goes_on(rig: Any, visit: Any, toy: Any) -> None:
    page = visit(rig)
    expect(page.locator(".face")).to_have_count(2)
    rig.camera.picture = toy.scene(480, 320, [])
    expect(page.locator(".face")).to_have_count(0)
    expect(page.locator("#people-list .when")).to_have_text(re.compile("s ago"))


def test_a_stranger_gets_a_name_by_keyboard_and_is_known_from_then_on(rig: Any, visit: Any) -> None:
    page = visit(rig)
    page.locator("#strangers-list button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#sheet")).to_be_visible()
    expect(page.locator("#sheet-about")).to_contain_text(f"Most like {NAME}")
    expect(page.locator("#name")).to_be_focused()
    page.keyboard.type("Grace Hopper")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("Grace Hopper is known from now on")
    expect(page.locator("#sheet")).to_be_hidden()
    expect(page.locator(".face", has_text="Grace Hopper")).to_have_count(1)
    expect(page.locator("#people-list li")).to_have_count(2)
    expect(page.locator("#strangers-empty")).to_be_visible()


def test_a_doubt_is_shown_before_anything_is_enrolled(rig: Any, visit: Any) -> None:
    page = visit(rig)
    # A tap on the face itself asks as well.
    page.locator(".face[data-stranger]").dispatch_event("pointerdown")
    page.locator("#name").fill(NAME)
    page.locator("#submit").click()
    expect(page.locator("#warnings")).to_contain_text("is it somebody else?")
    expect(page.locator("#submit")).to_have_text("Enrol anyway")
    page.locator("#name").fill("Grace")
    expect(page.locator("#submit")).to_have_text("Enrol")
    expect(page.locator("#warnings")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#sheet")).to_be_hidden()
    assert rig.ask("/api/state").json["gallery"]["vectors"] == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_fingers(rig: Any, visit: Any, scheme: str) -> None:
    page = visit(rig, color_scheme=scheme, **PHONE)
    expect(page.locator("#people-list li")).to_have_count(1)
    expect(page.locator(".stage").first).to_be_visible()
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    page.locator("#strangers-list button").tap()
    expect(page.locator("#sheet")).to_be_visible()
    for target in ("#strangers-list button", "#name", ".check", "#submit", "#cancel", "#forget"):
        box = page.locator(target).first.bounding_box()
        assert min(box["width"], box["height"]) >= 44, target
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert contrast(page, "#sheet-about", "#sheet") >= 4.5
    assert contrast(page, "#submit", "#submit") >= 4.5


def contrast(page: Any, text: str, ground: str) -> float:
    """WCAG 2's contrast between the text of one element and the background of another."""
    colours = [
        page.locator(selector).evaluate(f"element => getComputedStyle(element).{name}")
        for selector, name in ((text, "color"), (ground, "backgroundColor"))
    ]
    light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_token_is_asked_for_and_leaves_the_address(start: Any, visit: Any) -> None:
    with start(Token.of(SECRET, "test")) as rig:
        page = visit(rig)
        expect(page.get_by_text("This camera asks who looks")).to_be_visible()
        page.get_by_label("Token").fill("not the token at all")
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Token").fill(SECRET)
        page.get_by_role("button").click()
        expect(page.locator(".face", has_text=NAME)).to_have_count(1)
        other = visit(rig, f"?token={SECRET}")
        expect(other.locator(".face", has_text=NAME)).to_have_count(1)
        assert other.url == rig.url


def test_another_site_cannot_enrol_anybody_in_a_visitors_browser(rig: Any, visit: Any) -> None:
    page = visit(rig)
    expect(page.locator("#strangers-list li")).to_have_count(1)
    number = rig.ask("/api/state").json["strangers"][0]["id"]
    # The same browser on another site; the camera's machine answers under both names, as after DNS rebinding.
    foreign = page.context.new_page()
    foreign.route("http://evil.example/**", lambda route: route.fulfill(body="<p>hello", content_type="text/html"))
    foreign.goto("http://evil.example/")
    statuses = foreign.evaluate(
        """async ([url, number]) => {
            const body = JSON.stringify({ name: "Eve" });
            const path = `${url}api/strangers/${number}/name`;
            const ask = (options) => fetch(path, options).then((a) => a.type, () => "refused");
            return [
                await ask({ method: "POST", headers: { "Content-Type": "application/json" }, body }),
                await ask({ method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body }),
                await fetch(`${url}api/state`).then((a) => a.type, () => "refused"),
                await fetch(`${url}api/state`, { mode: "no-cors" }).then((a) => a.type, () => "refused"),
            ];
        }""",
        [rig.url, number],
    )
    assert statuses == ["refused"] * 4
    foreign.close()
    assert rig.ask("/api/state").json["gallery"]["vectors"] == 1
    expect(page.locator("#strangers-list li")).to_have_count(1)


def test_it_says_when_the_run_is_over(start: Any, visit: Any) -> None:
    with start() as rig:
        page = visit(rig)
        expect(page.locator("#status")).to_have_text("Live")
    expect(page.locator("#status")).to_have_text("Ended")
    expect(page.locator("#notice")).to_contain_text("The run has ended")


def test_a_page_that_was_open_before_a_restart_shows_the_new_run_and_no_dialog_of_before(
    start: Any, visit: Any
) -> None:
    with start(port=free_port()) as rig:
        page = visit(rig)
        expect(page.locator(".face")).to_have_count(2)
        page.locator("#strangers-list button").click()
        expect(page.locator("#sheet")).to_be_visible()
    with start(port=rig.page.address.port):
        expect(page.locator("#status")).to_have_text("Live")
        expect(page.locator("#sheet")).to_be_hidden()
        expect(page.locator(".face")).to_have_count(2)

"""The pages in a real headless browser: clicked through, by keyboard, on a phone, no network."""

import os
import re
import shutil
from itertools import pairwise

import pytest
from playwright.sync_api import Error, expect, sync_playwright
from reports import CATEGORIES, HOSTILE, make_categories, make_experiment

from fuzzyclip.report.comparison import Noise, Side, render_comparison
from fuzzyclip.report.page import render_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
SHOWN = "[data-item]:not([hidden])"


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium; a missing one is an error where everything must be tested."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = f"none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Both pages on disk."""
    folder = tmp_path_factory.mktemp("pages")
    sides = [
        Side(
            name, {"seed": f"{seed}"}, {k: make_categories(v, seed) for k, v in CATEGORIES.items()}
        )
        for seed, name in enumerate(("A", HOSTILE), start=1)
    ]
    (folder / "report.html").write_text(render_page(make_experiment()))
    place = ("mvtec", "fuzzyclip", "01", "image_auroc")
    noise = Noise({place: (-3.0, 99.0), (*place[:2], None, place[3]): (1.0, 2.0)})
    (folder / "compare.html").write_text(render_comparison(*sides, noise))
    return folder


@pytest.fixture
def visit(browser, files):
    """Opens a page; at the end nothing may have been asked for, said on the console, or broken."""
    opened, faults = [], []

    def look(request):
        if not request.url.startswith(("file://", "data:")):
            faults.append(f"request: {request.url}")

    def start(name="report.html", viewport=DESKTOP, **options):
        page = browser.new_page(viewport=viewport, reduced_motion="reduce", **options)
        page.on("request", look)
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.goto((files / name).as_uri())
        opened.append(page)
        return page

    yield start
    broken = [page.evaluate("window.broken") for page in opened]
    for page in opened:
        page.close()
    assert faults == []
    assert set(broken) <= {None}


def count(page, section):
    return page.locator(f"{section} {SHOWN}").count()


def values(page, section, key):
    """What the visible items carry."""
    items = page.locator(f"{section} {SHOWN}")
    return {items.nth(n).get_attribute(f"data-{key}") for n in range(items.count())}


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_every_link_of_the_navigation_leads_to_its_section(visit, name):
    page = visit(name)
    links = page.locator("nav a")
    assert links.count() >= 3
    for number in range(links.count()):
        links.nth(number).click()
        target = page.locator(links.nth(number).get_attribute("href"))
        assert target.locator("h2").count() == 1
        place = target.locator("h2").bounding_box()
        end = page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2")
        assert 30 <= place["y"] <= 140 or (end and place["y"] < DESKTOP["height"])
        expect(page.locator("nav a[aria-current]")).to_have_count(1)


def test_the_skip_link_is_first_and_leads_past_the_navigation(visit):
    page = visit()
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_bars_follow_metric_and_dataset(visit):
    page = visit()
    assert values(page, "#categories", "metric") == {"image_auroc"}
    assert values(page, "#categories", "dataset") == set(CATEGORIES)
    page.select_option("#bars-metric", "pixel_aupro")
    page.select_option("#bars-dataset", "own")
    assert values(page, "#categories", "metric") == {"pixel_aupro"}
    assert values(page, "#categories", "dataset") == {"own"}
    expect(page.locator("#categories [role=status]")).to_have_text("1 of 16 tables")
    expect(page.locator(f"#categories {SHOWN} caption")).to_have_text("OWN & co: pixel AUPRO [%]")


def test_curves_follow_dataset_and_category(visit):
    page = visit()
    assert values(page, "#curves", "category") == {"mvtec/"}
    page.select_option("#curves-category", f"mvtec/{HOSTILE}")
    assert values(page, "#curves", "category") == {f"mvtec/{HOSTILE}"}
    page.select_option("#curves-dataset", "own")  # its first choice takes the other's place
    assert values(page, "#curves", "category") == {"own/"}
    page.select_option("#curves-category", "own/a/b")
    shown = page.locator(f"#curves {SHOWN}")
    expect(shown.locator("h3")).to_have_text("OWN & co: a/b")
    expect(shown.locator("svg[role=img]")).to_have_count(4)
    with pytest.raises(Error, match="not enabled"):
        page.select_option("#curves-category", "mvtec/01", timeout=300)


def test_clusters_follow_k(visit):
    page = visit()
    assert values(page, "#clusters", "k") == {"2 used"}
    page.select_option("#clusters-k", "3")
    assert values(page, "#clusters", "k") == {"3"}
    expect(page.locator(f"#clusters {SHOWN} .dot")).to_have_count(4)


def test_filters_of_the_gallery_hide_all_other_images(visit):
    page = visit()
    total = 4 * sum(map(len, CATEGORIES.values()))
    assert count(page, "#gallery") == total
    page.select_option("#gallery-dataset", "mvtec")
    assert count(page, "#gallery") == 12
    page.select_option("#gallery-category", "mvtec/metal nut")
    assert values(page, "#gallery", "category") == {"mvtec/metal nut"}
    page.select_option("#gallery-dataset", "own")  # that category is none of it: all of them
    assert page.locator("#gallery-category").input_value() == ""
    assert count(page, "#gallery") == 8
    page.select_option("#gallery-dataset", "")
    page.get_by_role("button", name="worst", exact=True).click()
    assert values(page, "#gallery", "kind") == {"worst", "worst borderline"}
    page.get_by_role("button", name="anomalous", exact=True).click()
    assert values(page, "#gallery", "kind") == {"worst"}
    assert values(page, "#gallery", "label") == {"anomalous"}
    expect(page.locator("#gallery .count")).to_have_text(f"5 of {total} images")
    page.get_by_role("button", name="borderline", exact=True).click()
    expect(page.locator("#gallery .empty")).to_be_visible()
    pressed = page.locator("#gallery [aria-pressed=true]")
    assert pressed.all_inner_texts() == ["borderline", "anomalous"]


def test_the_picture_opens_moves_and_closes_by_keyboard(visit):
    page = visit()
    page.get_by_role("button", name="best", exact=True).click()
    cards = page.locator(f"#gallery {SHOWN} .card")
    cards.nth(0).focus()
    page.keyboard.press("Enter")
    dialog, status = page.locator("dialog"), page.locator("dialog [role=status]")
    expect(dialog).to_be_visible()
    expect(status).to_have_text("1 of 10")
    expect(dialog.locator("img")).to_have_count(2)
    first = dialog.locator("dl").inner_text()
    assert "F1-max threshold, chosen on the test set" in first
    page.keyboard.press("ArrowRight")
    expect(status).to_have_text("2 of 10")
    assert dialog.locator("dl").inner_text() != first
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(status).to_have_text("10 of 10")  # round the end
    dialog.get_by_role("button", name="Next").click()
    dialog.get_by_role("button", name="Next").click()
    expect(status).to_have_text("2 of 10")
    assert page.evaluate("document.querySelector('dialog').contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(cards.nth(1)).to_be_focused()  # the picture that was looked at last
    cards.nth(4).click()
    dialog.get_by_role("button", name="Close").click()
    expect(cards.nth(4)).to_be_focused()


@pytest.mark.parametrize(("viewport", "few"), [(DESKTOP, 12), (PHONE, 6)], ids=["desktop", "phone"])
def test_a_few_cards_come_first_and_the_rest_by_keyboard(visit, viewport, few):
    page = visit(viewport=viewport)
    total = 4 * sum(map(len, CATEGORIES.values()))
    visible = page.locator("#gallery [data-item]:visible")
    more = page.locator("#gallery .more button")
    expect(visible).to_have_count(few)
    left = total - few
    assert more.all_inner_texts() == [f"Show {min(few, left)} more", f"Show all {total}"]
    more.nth(0).focus()
    page.keyboard.press("Enter")
    expect(visible).to_have_count(min(2 * few, total))
    expect(page.locator("#gallery .card").nth(few)).to_be_focused()  # the first of the new ones
    page.get_by_role("button", name="worst", exact=True).click()  # few again
    expect(visible).to_have_count(min(few, 10))
    page.get_by_role("button", name="all", exact=True).click()
    more.nth(1).click()
    expect(visible).to_have_count(total)
    expect(more.nth(0)).to_be_hidden()


def test_the_viewer_goes_on_to_cards_that_are_not_shown_yet(visit):
    page = visit()
    page.locator("#gallery .card").nth(0).click()
    page.keyboard.press("ArrowLeft")  # round the end
    expect(page.locator("dialog [role=status]")).to_have_text("20 of 20")
    page.keyboard.press("Escape")
    expect(page.locator("#gallery .card").nth(19)).to_be_focused()


def test_paper_has_all_cards_that_were_chosen_and_no_controls(visit):
    page = visit()
    page.get_by_role("button", name="anomalous", exact=True).click()
    page.select_option("#gallery-dataset", "mvtec")
    page.emulate_media(media="print")
    expect(page.locator("#gallery [data-item]:visible")).to_have_count(6)
    page.emulate_media(media="screen")
    page.select_option("#gallery-dataset", "")
    page.get_by_role("button", name="both", exact=True).click()
    page.emulate_media(media="print")
    expect(page.locator("#gallery [data-item]:visible")).to_have_count(20)
    for hidden in (".nav", ".controls", ".more"):
        assert not page.locator(f"{hidden}:visible").count()


def test_a_hostile_name_is_shown_as_it_is(visit):
    page = visit()
    page.select_option("#gallery-category", f"mvtec/{HOSTILE}")
    page.locator(f"#gallery {SHOWN} .card").first.click()
    assert HOSTILE in page.locator("dialog dl").inner_text()


def test_maps_lie_beside_the_image_or_over_it_and_outlines_can_go(visit):
    page = visit()
    panes = page.locator(f"#gallery {SHOWN} .pane")
    image, heat = panes.nth(0).bounding_box(), panes.nth(1).bounding_box()
    assert heat["x"] >= image["x"] + image["width"]
    page.select_option("#gallery-view", "over")
    assert panes.nth(0).bounding_box() == panes.nth(1).bounding_box()
    outline = page.locator("#gallery [data-label=anomalous] .outline").first
    expect(outline).to_be_visible()
    assert outline.locator("path").bounding_box()["width"] > 20
    page.get_by_label("ground truth outline").uncheck()
    expect(outline).to_be_hidden()


def test_differences_follow_their_filters(visit):
    page = visit("compare.html")
    assert values(page, "#categories", "metric") == {"pixel_ap"}  # of the headline, and changed
    page.select_option("#categories-metric", "image_auroc")
    assert values(page, "#categories", "variant") == {"fuzzyclip"}
    everything = count(page, "#categories")
    page.get_by_role("button", name="worse", exact=True).click()
    worse = count(page, "#categories")
    sizes = page.locator(f"#categories {SHOWN} .value").all_inner_texts()
    assert sizes
    assert all(size.startswith("−") for size in sizes)
    numbers = [float(size.replace("−", "-")) for size in sizes]
    assert numbers == sorted(numbers)
    page.get_by_role("button", name="better", exact=True).click()
    assert worse + count(page, "#categories") == everything == 5
    page.select_option("#categories-dataset", "own")
    assert values(page, "#categories", "dataset") <= {"own"}
    page.select_option("#datasets-metric", "image_auroc")
    assert values(page, "#datasets", "metric") == {"image_auroc"}
    assert count(page, "#datasets") == 2


def test_a_difference_and_its_band_are_seen_on_a_phone_without_scrolling(visit):
    page = visit("compare.html", PHONE)
    page.select_option("#datasets-metric", "image_auroc")
    line = page.locator("#datasets tr[data-dataset=mvtec]:not([hidden])")
    for part in (".value", "svg", ".band"):
        place = line.locator(part).bounding_box()
        assert place["x"] + place["width"] <= PHONE["width"]
    bar, band = line.locator("svg").bounding_box(), line.locator(".band").bounding_box()
    assert (band["x"] - bar["x"]) / bar["width"] == pytest.approx(0.55, abs=0.01)
    assert band["width"] / bar["width"] == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_page_never_scrolls_sideways(visit, name, viewport):
    page = visit(name, viewport)
    wide = "document.scrollingElement.scrollWidth"
    assert page.evaluate(wide) <= viewport["width"]
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate(wide) <= viewport["width"]
    if name == "report.html":
        page.locator(f"#gallery {SHOWN} .card").first.click()
        place = page.locator("dialog").bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= viewport["width"]
        assert place["y"] + place["height"] <= viewport["height"]
        expect(page.locator("dialog [data-close]")).to_be_in_viewport()


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_everything_has_a_name_and_headings_go_down_step_by_step(visit, name):
    page = visit(name)
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("svg:not([role=img]):not([aria-hidden])").count() == page.locator(
        "[aria-hidden] svg:not([role=img]):not([aria-hidden])"
    ).count()  # fmt: skip
    assert page.locator("svg[role=img]:not([aria-label])").count() == 0
    levels = page.eval_on_selector_all("h1,h2,h3,h4", "all => all.map(one => +one.tagName[1])")
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(set(ids)) == len(ids)
    tree = page.locator("body").aria_snapshot()
    for role in ("button", "combobox", "checkbox", "link", "img", "region", "group", "navigation"):
        unnamed = re.findall(rf"^\s*- {role}(?: \[[^\]]*\])*:?$", tree, flags=re.M)
        assert role == "group" or not unnamed, (role, unnamed[:3])  # <details> are groups


#: Contrast of text and background as WCAG 2 defines it, of all visible text on a plain background.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = parse(text).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((parse(colour)[3] ?? 1) === 1) return colour;
    }
    return null;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest("script, style")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(node.closest("svg") ? style.fill : style.color), light(back(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([Math.round(ratio * 100) / 100, walker.currentNode.data.trim().slice(0, 30)]);
  }
  return found;
}"""


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_by_day_and_by_night(visit, name, scheme):
    page = visit(name, color_scheme=scheme)
    texts = page.evaluate(CONTRAST)
    assert len(texts) > 50
    assert [(ratio, text) for ratio, text in texts if ratio < 4.5] == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_focus_can_be_seen(visit):
    page = visit()
    for _ in range(12):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement);"
            " return [s.outlineStyle, parseFloat(s.outlineWidth)]; })()"
        )
        assert style == ["solid", 3]


def test_without_scripts_everything_is_there(browser, files):
    page = browser.new_page(java_script_enabled=False)
    page.goto((files / "report.html").as_uri())
    assert page.locator(SHOWN).count() == page.locator("[data-item]").count()
    expect(page.locator("#gallery .card").first).to_be_visible()
    for useless in (".more", ".controls"):
        assert not page.locator(f"{useless}:visible").count()
    page.set_viewport_size(PHONE)
    places = [card.bounding_box() for card in page.locator("#gallery .card").all()]
    assert len({place["y"] for place in places}) == 1  # one strip
    assert places[-1]["x"] > PHONE["width"]
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    page.close()


def test_a_script_that_is_not_ours_would_not_run(browser, files, tmp_path):
    """The policy itself works: what the tests above find absent is forbidden, too."""
    text = (files / "report.html").read_text()
    added = "<script>window.broken = 1</script><img src='http://127.0.0.1:9/x.png' alt=''>"
    (tmp_path / "bad.html").write_text(text.replace("</main>", f"{added}</main>"))
    page, refused = browser.new_page(), []
    page.on("console", lambda message: refused.append(message.text))
    page.goto((tmp_path / "bad.html").as_uri())
    assert page.evaluate("window.broken") is None
    assert len([text for text in refused if "Content Security Policy" in text]) == 2
    page.close()

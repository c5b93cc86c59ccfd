"""The page as a reader works it, in a browser."""

import itertools
import re

import numpy as np
import pyarrow as pa
import pytest

from flowjax.report.page import flow
from flowjax.report.page.flow import PALETTE
from flowjax.report.page.page import make_page
from flowjax.sweeps.rows import SCHEMA
from tests.browser.pages import a_page, hostile_page, swept

SECTIONS = ("flow", "pair", "sample", "curves", "more")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return a_page().save(tmp_path_factory.mktemp("page") / "report.html")


def ribbons(page, section="flow"):
    return page.locator(f"#{section} .ribbon[data-kind=ribbon]").count()


@pytest.mark.parametrize("width", [1280, 400])
def test_everything_is_there_and_fits(opened, report, width):
    found = opened(report, width)
    page = found.page
    for section in SECTIONS:
        assert page.locator(f"#{section} h2").is_visible()
        box = page.locator(f"#{section}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.locator(".widget > *").count() > 6
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => "
        "t.getBoundingClientRect().height))"
    )
    assert smallest >= 7
    found.assert_quiet(report)


@pytest.mark.parametrize("width", [1280, 400])
def test_no_rule_of_accessibility_is_broken(opened, report, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(report, width).page
    page.locator("summary").first.click()
    found = axe.run(page).response["violations"]
    assert not found, [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found]


def test_switches_change_the_map_and_the_sentences(opened, report):
    found = opened(report)
    page = found.page
    before, stages = ribbons(page), page.locator("#flow .stages").inner_text()
    assert before >= 5 and "layers 4-5" in stages and "layers 2-3" in stages
    page.locator("#flow select").nth(1).select_option(label="object count")
    assert ribbons(page) == 0  # five samples are not tested
    assert "not tested" in page.locator("#flow .stages").inner_text()
    page.locator("#flow select").nth(1).select_option(label="moving direction")
    assert ribbons(page) >= 5
    page.locator("#flow select").first.select_option(label="image")
    assert "-16" in page.locator("#flow .stages").inner_text()
    assert (
        page.locator("#flow svg").first.get_attribute("aria-label").startswith("Flow map of image")
    )
    page.locator("#flow input[type=checkbox]").first.uncheck()
    assert page.locator("#flow .hit[aria-label^='cross']").count() == 0
    assert page.locator("#pair svg[aria-label^='Flow map']").count() == 3
    found.assert_quiet(report)


def test_the_slider_hides_small_effects(opened, report):
    page = opened(report).page
    slider = page.locator("#flow input[type=range]")
    every = ribbons(page)
    slider.fill("50")
    assert ribbons(page) == 2
    assert page.locator("#flow output").inner_text() == "50%"
    slider.focus()
    page.keyboard.press("Home")
    assert ribbons(page) == every


def test_pointing_at_a_ribbon_tells_its_effect(opened, report):
    page = opened(report).page
    hit = page.locator("#flow .hit[aria-label^='question \N{RIGHTWARDS ARROW} last, layer 4']")
    at = hit.evaluate(
        "path => { const p = path.getPointAtLength(path.getTotalLength() * 0.2); "
        "const m = path.getScreenCTM(); return [p.x * m.a + m.e, p.y * m.d + m.f]; }"
    )
    page.mouse.move(*at)
    said = page.locator("#tip").inner_text()
    assert re.search(r"question . last, layer 4\n", said)
    assert re.search(r"changes by .\d\d\.\d%\n95% interval \[.*\]\nn = 13\nadjusted p", said)
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()


def test_heads_begin_with_the_one_that_matters_and_a_heat_map_marks_effects(opened, tmp_path):
    field = SCHEMA.field("head")
    tables = []
    for head, scale in enumerate((1e-9, 1.0, 0.01)):
        rows = swept("video", scale, ["moving_direction"])
        heads = pa.array([head] * rows.num_rows).cast(field.type)
        tables.append(rows.set_column(SCHEMA.names.index("head"), field, heads))
    path = make_page("t", flow.sections([flow.Swept("video", pa.concat_tables(tables))])).save(
        tmp_path / "heads.html"
    )
    found = opened(path)
    page = found.page
    assert page.locator("#flow select").first.input_value() == "1"
    assert ribbons(page) >= 4
    assert 0 < page.locator("#curves .effect").count() < page.locator("#curves rect").count()
    assert "dots: significant" in page.locator("#curves").inner_text()
    found.assert_quiet(path)


def test_keys_go_through_the_map(opened, report):
    page = opened(report).page
    page.locator("#flow input[type=checkbox]").last.focus()
    page.keyboard.press("Tab")
    focused = "document.activeElement.getAttribute('aria-label')"
    first = page.evaluate(focused)
    assert first.startswith("question \N{RIGHTWARDS ARROW} last, layer")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Home")
    assert "last, layer 1;" in page.evaluate(focused)
    page.keyboard.press("ArrowRight")
    assert "last, layer 2;" in page.evaluate(focused)
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused).startswith("video \N{RIGHTWARDS ARROW} last, layer 2;")
    assert "n = 13" in page.evaluate(focused)
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_the_sample_by_layer_and_frame(opened, report):
    found = opened(report)
    page = found.page
    panel = page.locator("#sample .panels figure").first
    before = panel.inner_html()
    assert "layer 5" in panel.inner_text()
    page.locator("#sample input[type=range]").first.fill("2")
    assert "layer 2" in panel.inner_text() and panel.inner_html() != before
    assert "cut: video > question" in page.locator("#sample .panels").inner_text()
    page.locator("#sample .strip button").nth(1).click()
    assert page.locator("#sample .strip .chosen").inner_text().startswith("2:")
    page.locator("#sample .strip button").nth(3).click()
    assert page.locator("#sample .strip .chosen").inner_text().startswith("4:")
    page.locator("#sample .place[tabindex='0']").first.focus()
    page.keyboard.press("ArrowRight")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("row 1, column 2; ") and page.locator("#tip").is_visible()
    assert page.locator("#sample .tokens span").count() == 3
    found.assert_quiet(report)


def test_it_prints(opened, report, tmp_path):
    page = opened(report).page
    page.emulate_media(media="print")
    data = page.pdf(format="A4", margin={"top": "12mm", "left": "12mm", "right": "12mm"})
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert data.startswith(b"%PDF") and 3 <= pages <= 14
    assert not page.locator("nav").is_visible()
    # On paper nothing can be scrolled: a map is as wide as the page.
    page.set_viewport_size({"width": 700, "height": 900})
    wide = (
        "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().right > 700)"
    )
    assert page.evaluate(f"{wide}.length") == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_text_is_text(opened, tmp_path, width):
    path = hostile_page().save(tmp_path / "hostile.html")
    found = opened(path, width)
    page = found.page
    for select in page.locator("select").all():
        for index in range(select.locator("option").count()):
            select.select_option(index=index)
            break
    page.locator("#sample select").first.select_option(index=1)
    page.locator("#sample .tokens span").nth(1).hover()
    assert "<img src=x" in page.locator("#tip").inner_text()
    assert page.title() == "<script>document.title='owned'</script>"
    assert page.locator("script").count() == page.locator("script[type]").count() + 1
    assert page.locator("[onerror], [onload], a[href^=javascript], img[src=x]").count() == 0
    assert "{{ 7*7 }}" in page.locator("#more").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found.assert_quiet(path)
    # What would get past the escaping is not run: the page's policy knows its own script alone.
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'owned'";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='document.title=1'>");
        }"""
    )
    page.wait_for_timeout(50)
    assert page.title() == "<script>document.title='owned'</script>"


def test_colours_are_told_apart():
    """On white, 3:1 (WCAG 1.4.11); from each other, also with one kind of cone missing."""
    # Machado, Oliveira & Fernandes 2009, severity 1: what protans, deutans and tritans see.
    seen = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                   [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
        "all": np.eye(3).tolist(),
    }  # fmt: skip
    white = np.array([0.95047, 1, 1.08883])
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip

    def linear(colour):
        part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)

    def lab(light):
        x, y, z = np.cbrt(to_xyz @ np.clip(light, 1e-3, 1) / white)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for colour in PALETTE:
        assert 1.05 / ((to_xyz @ linear(colour))[1] + 0.05) >= 3, colour
    for kind, matrix in seen.items():
        found = [lab(np.array(matrix) @ linear(colour)) for colour in PALETTE]
        for (i, a), (j, b) in itertools.combinations(enumerate(found), 2):
            assert np.linalg.norm(a - b) > 15, (kind, PALETTE[i], PALETTE[j])

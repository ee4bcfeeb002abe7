"""The page in headless Chromium: every control, plots that zoom and answer, texts of others, phone and dark mode."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_report import LABELS, METRICS, ROWS, contents, large

from vac_lightning.report.contents import Contents
from vac_lightning.report.page import write
from vac_lightning.report.page.tables import results

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@dataclass
class Opened:
    """A page and what it did that it should not."""

    page: Any
    url: str
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return contents(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def file(report: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(report, path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def desktop(browser: Any, file: Path) -> Iterator[Opened]:
    opened = _open(browser, file, viewport={"width": 1300, "height": 900})
    yield opened
    opened.page.context.close()
    assert opened.problems == []


@pytest.fixture(scope="module")
def phone(browser: Any, file: Path) -> Iterator[Opened]:
    opened = _open(browser, file, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    yield opened
    opened.page.context.close()
    assert opened.problems == []


def _open(browser: Any, file: Path, **kind: Any) -> Opened:
    context = browser.new_context(reduced_motion="reduce", **kind)
    context.set_offline(True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    opened = Opened(page, file.as_uri())
    page.on("console", lambda message: opened.problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: opened.problems.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (opened.problems.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: _judge(opened, request.url))
    page.goto(opened.url)
    return opened


def _judge(opened: Opened, url: str) -> None:
    if url != opened.url and not url.startswith("data:"):
        opened.problems.append(f"request: {url}")


def _plot(page: Any, name: str) -> Any:
    """A plot, in view and drawn."""
    plot = page.locator(f"#plot-{name}")
    plot.scroll_into_view_if_needed()
    plot.locator(".main-svg").first.wait_for()
    return plot


def _column(page: Any, metric: str) -> list[str]:
    column = 3 + METRICS.index(metric)
    return page.locator(f"#table tbody tr:visible td:nth-child({column}) .ours:visible").all_inner_texts()


def test_plots_hold_all_the_data(desktop: Opened, report: Contents) -> None:
    page, rows = desktop.page, len(ROWS)
    curves = _plot(page, "curves")
    assert curves.locator(".scatterlayer .trace").count() == 2 * rows
    assert _plot(page, "comparisons").locator(".point").count() == len(report.comparisons)
    assert _plot(page, "lambda").locator(".errorbar").count() == sum(len(s.lambdas) for s in report.lambdas)
    assert _plot(page, "labels").locator(".point").count() == 2 * len(LABELS)
    page.locator("#plots-consistency").scroll_into_view_if_needed()
    page.locator("#plots-consistency .point").nth(4 * 2 * rows - 1).wait_for()
    assert page.locator("#plots-consistency .point").count() == 4 * 2 * rows
    assert page.locator("#cards figure").count() == 3
    sizes = page.evaluate("[...document.querySelectorAll('#cards img, #panel')].map((img) => img.naturalWidth)")
    assert len(sizes) == 3 * 2 * 3 + 1 and min(sizes) > 0


def test_a_chip_takes_its_row_out_and_a_term_changes_the_curve(desktop: Opened, report: Contents) -> None:
    page = desktop.page
    plot = _plot(page, "curves")
    chip = page.locator("#chips-curves button", has_text=re.compile(r"^Tiny\+f$"))
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert plot.locator(".scatterlayer .trace").count() == 2 * len(ROWS) - 2
    chip.click()
    page.locator("#term").select_option("train/loss_a/f")
    drawn = plot.evaluate("(plot) => plot.data[1].y")
    own = [c.values for c in report.curves if c.row == ROWS[0] and c.name == "train/loss_a/f"]
    np.testing.assert_allclose(drawn, np.mean(own, 0), rtol=1e-4)


def test_dragging_zooms_and_a_double_click_goes_back(desktop: Opened) -> None:
    page = desktop.page
    plot = _plot(page, "curves")
    ranges = "(plot) => [plot._fullLayout.xaxis.range, plot._fullLayout.yaxis.range].flat()"
    whole = plot.evaluate(ranges)
    box = plot.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_function(
        "(x) => document.getElementById('plot-curves')._fullLayout.xaxis.range[0] !== x", arg=whole[0]
    )
    low, high = plot.evaluate(ranges)[:2]
    assert [low, high] == pytest.approx(
        [0.75 * whole[0] + 0.25 * whole[1], 0.25 * whole[0] + 0.75 * whole[1]], abs=0.05
    )
    plot.locator("[data-title='Reset axes']").click()
    page.wait_for_function(
        "(x) => document.getElementById('plot-curves')._fullLayout.xaxis.range[0] === x", arg=whole[0]
    )


def test_pointing_at_a_dot_reads_out_its_value(desktop: Opened, report: Contents) -> None:
    page = desktop.page
    plot = _plot(page, "comparisons")
    point = plot.locator(".point").nth(2).bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2 - 3, point["y"] + point["height"] / 2)
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    label = plot.locator(".hovertext")
    label.wait_for()
    comparison = report.comparisons[2]
    assert label.text_content() == (
        f"<b>x</b> − Tiny{comparison.difference:+.2f} points, {comparison.low:+.2f} to {comparison.high:+.2f}"
        f"p = {comparison.p_value:.3f}"
    )


def test_sorting_filter_and_epoch(desktop: Opened, report: Contents) -> None:
    page = desktop.page
    given = {epoch: [line.cells[0][epoch].ours for line in results(report)][: len(ROWS)] for epoch in ("best", "last")}
    assert _column(page, "mAP")[: len(ROWS)] == given["best"]
    head = page.locator("#table thead button", has_text="mAP")

    def names() -> list[str]:
        return page.locator("#table tbody tr").evaluate_all("(rows) => rows.map((row) => row.dataset.name)")

    def expected(epoch: str, sign: int) -> list[str]:
        lines = sorted(results(report), key=lambda line: sign * line.cells[0][epoch].order)
        return [line.row.name for line in lines]

    first = names()
    head.click()
    assert names() == expected("best", -1)
    page.get_by_role("button", name="last epoch").click()
    assert names() == expected("last", -1)
    assert set(_column(page, "mAP")) == {*given["last"], "–"}
    head.click()
    assert names() == expected("last", 1)
    head.click()
    assert names() == first
    page.get_by_role("button", name="best epoch").click()
    page.locator("#filter").fill("tiny+")
    assert page.locator("#table tbody tr:visible").count() == 2
    assert page.locator("#filtered").inner_text() == f"2 of {len(first)}"
    page.locator("#filter").fill("")


def test_names_and_labels_are_shown_as_they_stand(desktop: Opened) -> None:
    page = desktop.page
    ticks = _plot(page, "labels").locator(".ytick text").all_text_contents()
    whole = {label if len(label) <= 34 else label[:33] + "…" for label in LABELS}
    assert set(ticks) == whole
    for text in ROWS:
        assert page.locator("#table tbody th", has_text=text).first.is_visible()
        assert page.locator("#chips-curves button", has_text=text).first.is_visible()
    assert (
        page.locator(
            ".js-plotly-plot a, .js-plotly-plot b, main b:not(#results > p > b), main section a[href^=http]"
        ).count()
        == 0
    )
    assert page.locator(".js-plotly-plot tspan[style*='font-weight:bold']").count() == 0
    assert page.locator("#cards .name").first.inner_text() == "<script>"


def test_nothing_can_be_fetched_or_run_by_what_came_into_the_page(browser: Any, file: Path) -> None:
    opened = _open(browser, file)
    opened.page.context.set_offline(False)
    refused = opened.page.evaluate(
        """async () => {
          const refused = [];
          document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.came = true";
          document.body.append(script);
          const picture = new Image();
          picture.src = "http://127.0.0.1:9/x.png";
          await fetch("http://127.0.0.1:9/x").catch(() => 0);
          await new Promise((done) => setTimeout(done, 200));
          return [refused.sort(), window.came === undefined];
        }"""
    )
    assert refused == [["connect-src", "img-src", "script-src-elem"], True]
    opened.page.context.close()


def test_a_phone_scrolls_tables_and_never_the_page(phone: Opened) -> None:
    page = phone.page
    for section in page.locator("main > section").all():
        section.scroll_into_view_if_needed()
        page.wait_for_timeout(60)
    assert page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]") == [360, 360]
    box = page.locator(".wide").first
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth")
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, nav a, summary")]
          .filter((target) => target.checkVisibility() && target.getBoundingClientRect().height < 40)
          .map((target) => target.outerHTML.slice(0, 80))"""
    )
    assert small == []
    assert page.evaluate("document.getElementById('plot-curves')._fullLayout.dragmode") is False  # a finger scrolls


def test_dark_mode_follows_the_system_and_the_button(desktop: Opened) -> None:
    page = desktop.page
    _plot(page, "curves")
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("(theme) => document.documentElement.dataset.theme === theme", arg=scheme)
        page.wait_for_timeout(300)
        found = page.evaluate(_COLOURS)
        paper = found["--paper"]
        assert found["body"] == found["plot"] == paper
        assert found["line"] == found["--hue-0"]
        assert min(_contrast(found[f"--hue-{i}"], paper) for i in range(7)) >= 3
        assert (
            min(_contrast(found[name], paper) for name in ("--ink", "--quiet", "--accent", "--good", "--poor")) >= 4.5
        )
        seen.append(found)
    assert _luminance(seen[0]["body"]) > 0.8 and _luminance(seen[1]["body"]) < 0.05
    page.get_by_role("button", name="Light colours").click()
    assert page.evaluate(_COLOURS)["body"] == seen[0]["body"]
    page.emulate_media(color_scheme="light")


def test_every_control_works_without_a_word_on_the_console(desktop: Opened) -> None:
    page = desktop.page
    for name in ("comparisons", "curves", "lambda", "labels"):
        _plot(page, name)
    for summary in page.locator("summary").all():
        summary.click()
    for select in page.locator("select").all():
        for value in select.locator("option").evaluate_all("(options) => options.map((option) => option.value)"):
            select.select_option(value)
    pressed = "(buttons) => buttons.map((button) => button.click()).length"
    assert page.locator("main button:not(.modebar-btn)").evaluate_all(pressed) > 50
    for tool in ("Zoom in", "Zoom out", "Pan", "Zoom", "Reset axes"):
        page.locator(f"#plot-comparisons [data-title='{tool}']").dispatch_event("click")
    slider = page.locator("#panel-epoch")
    seen = {page.locator("#panel").get_attribute("src")}
    for _ in range(2):
        slider.press("ArrowLeft")
        seen.add(page.locator("#panel").get_attribute("src"))
    assert len(seen) == 3 and page.locator("#panel-at").inner_text() == "0"
    page.get_by_role("button", name="all rows").click()
    assert page.locator("#plot-labels .heatmaplayer image").count() == 1
    page.get_by_role("button", name="two rows").click()
    for link in page.locator("nav a").all():
        link.click()
        assert page.locator(link.get_attribute("href")).count() == 1
    assert desktop.problems == []


def test_200_runs_open_at_once(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    write(large(), path)
    opened = _open(browser, path)
    session = opened.page.context.new_cdp_session(opened.page)
    session.send("Performance.enable")
    held = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    assert held["ProcessTime"] < 5  # seconds of CPU, which a busy machine does not change
    opened.page.locator("#plot-curves").scroll_into_view_if_needed()
    opened.page.locator("#plot-curves .scatterlayer .trace").nth(23).wait_for()
    opened.page.locator("#chips-curves .every").first.click()
    opened.page.locator("#plot-curves .scatterlayer .trace").nth(99).wait_for()
    assert opened.problems == []
    opened.page.context.close()


def _luminance(colour: str) -> float:
    """WCAG's relative luminance of "rgb(r, g, b)"."""
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


_COLOURS = """() => {
  const probe = document.body.appendChild(document.createElement("span"));
  const names = ["--paper", "--ink", "--quiet", "--accent", "--good", "--poor"];
  for (let i = 0; i < 7; i++) names.push(`--hue-${i}`);
  const found = {};
  for (const name of names) {
    probe.style.color = `var(${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  const plot = document.getElementById("plot-curves");
  found.body = getComputedStyle(document.body).backgroundColor;
  found.plot = plot._fullLayout.plot_bgcolor;
  found.line = plot.querySelector(".scatterlayer .trace .js-line").style.stroke;
  return found;
}"""

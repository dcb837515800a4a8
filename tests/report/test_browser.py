"""The page in a real browser: its controls work, and its figures equal those of Python."""

import shutil

import numpy as np
import pytest
from browser import (
    CONTRAST,
    WIDTHS,
    assert_fits,
    choose,
    every,
    find_browser,
    one,
    opened,
    seen,
    set_media,
    set_size,
    start,
    texts,
    write,
)
from fake_runs import (
    HOSTILE,
    add_calibration,
    add_examples,
    add_scores,
    add_training,
    make_metrics,
    make_workdir,
)
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from sklearn import metrics as sklearn_metrics

from jaxad.calibration.calibration_set import read_calibration_set
from jaxad.calibration.conformal import group_maxima
from jaxad.evaluate import decisions, thresholds
from jaxad.evaluate.score_table import read_score_table
from jaxad.report import write_report
from jaxad.storage.workdir import Workdir, write_json
from jaxad.types import group_numbers

FIRST = '#patients .split[data-split="0"]'


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    found = find_browser()
    if found is None:
        pytest.skip("there is no chromium with chromedriver on the PATH")
    browser = start(*found, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two test splits and a calibration, compared with another run."""
    folder = tmp_path_factory.mktemp("runs")
    workdir = make_workdir(folder / "run")
    rng = np.random.default_rng(0)
    add_training(workdir)
    # 24 patients with up to 12 slices; every other patient has anomalous ones.
    sizes = rng.integers(1, 13, 24)
    groups = [
        HOSTILE if i == 3 else f"patient-{i}" for i, size in enumerate(sizes) for _ in range(size)
    ]
    positions = np.concatenate([np.arange(size) for size in sizes])
    numbers = np.repeat(np.arange(24), sizes)
    labels = ((numbers % 2 == 1) & (rng.random(len(numbers)) < 0.6)).astype(int)
    scores = rng.normal(1.5 * labels).round(1)  # ties
    ids = [f"slice-{i}" for i in range(len(labels))]
    ids[0] = HOSTILE
    add_scores(workdir, "test_a", labels, scores, ids, groups, positions)
    add_examples(workdir, "test_a", ["low", "reconstruction"], ids=[HOSTILE, *ids[1:4]])
    add_scores(workdir, "test_b", np.ones(5, int), np.arange(5))
    add_examples(workdir, "test_b", [], mask=False)
    for split in ("test_a", "test_b"):
        write_json(workdir.evaluation(split) / "metrics.json", make_metrics())
    of_normals = np.repeat([f"n{i}" for i in range(30)], rng.integers(1, 6, 30)).tolist()
    add_calibration(workdir, rng.normal(size=len(of_normals)).round(1), of_normals)
    other = shutil.copytree(workdir.path, folder / "another-run-with-quite-a-long-name")
    write_report(workdir, [Workdir(other)])
    return workdir


@pytest.fixture(params=WIDTHS)
def page(driver, run, request):
    yield opened(driver, run.report, request.param)
    assert driver.get_log("browser") == []  # no errors, whatever was clicked
    assert_fits(driver)


@pytest.fixture
def desktop(driver, run):
    yield opened(driver, run.report)
    assert driver.get_log("browser") == []


def cases(driver):
    return texts(driver, "#slices .case h4")


def test_cases_are_stepped_through_by_buttons_and_arrows(page):
    assert cases(page) == [HOSTILE]
    place = one(page, "#slices .place")
    assert place.text == "1 of 2"
    one(page, '#slices [data-step="1"]').click()
    assert cases(page) == ["slice-1"] and place.text == "2 of 2"
    assert not one(page, '#slices [data-step="1"]').is_enabled()
    one(page, "body").send_keys(Keys.ARROW_LEFT)
    assert cases(page) == [HOSTILE]
    one(page, "body").send_keys(Keys.ARROW_RIGHT)
    one(page, "body").send_keys(Keys.ARROW_RIGHT)  # there is no third
    assert cases(page) == ["slice-1"]
    choose(page, "kind-0", "misses")
    assert cases(page) == ["slice-3"] and place.text == "1 of 2"
    choose(page, "kind-0", "false_alarms")
    assert cases(page) == ["slice-1"] and place.text == "1 of 1"
    case = one(page, "#slices .case:not([hidden])")
    assert [element.text.split("\n")[0] for element in every(case, "figcaption")] == [
        "input", "low level", "reconstruction", "residual",
    ]  # fmt: skip
    assert all(
        page.execute_script("return arguments[0].naturalWidth", image) == 16
        for image in every(case, "img")
    )
    assert "largest contribution" in case.text and "highest of normal slices" in case.text


def test_outlines_can_be_left_out(desktop):
    assert len(seen(desktop, "#slices .outline")) == 4
    one(desktop, "[data-outlines]").click()
    assert not seen(desktop, "#slices .outline")


def test_all_sections_show_the_split_that_one_chooses(page):
    choose(page, "split-patients", "1")
    assert {one.get_attribute("data-split") for one in seen(page, ".split")} == {"1"}
    assert len(seen(page, ".split")) == 3
    assert one(page, 'input[name="split-slices"][value="1"]').is_selected()
    assert column(page, 0) == ["group-1", "group-0"]


def table_of(run, split="test_a"):
    return read_score_table(run.evaluation(split) / "scores.csv")


def shown_figures(page):
    root = one(page, '.split[data-split="0"] .decider')
    figures = {
        element.get_attribute("data-figure"): float(element.get_attribute("value"))
        for element in every(root, "[data-figure]")
    }
    return float(root.get_attribute("data-threshold")), figures


def expected_figures(labels, scores, threshold):
    called = (scores > threshold).astype(int)
    matrix = sklearn_metrics.confusion_matrix(labels, called).ravel()
    names = ("trueNegatives", "falsePositives", "falseNegatives", "truePositives")
    decision = thresholds.at_threshold(labels, scores, threshold)
    precision = sklearn_metrics.precision_score(labels, called, zero_division=np.nan)
    return {
        **dict(zip(names, matrix, strict=True)),
        "sensitivity": decision.sensitivity, "specificity": decision.specificity,
        "f1": decision.f1, "precision": precision,
    }  # fmt: skip


def of_unit(run, unit):
    table = table_of(run)
    scores, groups = table.columns["score"], group_numbers(table.groups)
    if unit == "image":
        return table.labels, scores
    return group_maxima(table.labels.astype(float), groups).astype(int), group_maxima(
        scores, groups
    )


def check_figures(page, run, unit, threshold):
    labels, scores = of_unit(run, unit)
    at, figures = shown_figures(page)
    assert at == threshold
    expected = expected_figures(labels, scores, threshold)
    realised = figures.pop("falsePositiveRate")
    assert figures == pytest.approx(expected, abs=1e-12, nan_ok=True)
    return realised


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_rates_give_the_thresholds_and_figures_of_python(desktop, run, unit):
    calibration = read_calibration_set(run.calibration).calibration
    table = table_of(run)
    groups = group_numbers(table.groups)
    choose(desktop, "unit-0", unit)
    rate_input = one(desktop, '#thresholds [data-by="rate"] input[type="number"]')
    rates = {"0.5": 0.005, "5": 0.05, "9.7": 0.097, "10": 0.1, "1.7e1": 0.17, "33.3": 0.333,
             "50": 0.5, "87.5": 0.875}  # fmt: skip
    for percent, rate in rates.items():
        write(rate_input, percent)
        found = decisions.of_normals(
            calibration, rate, table.labels, table.columns["score"], groups, 2
        )
        realised = check_figures(desktop, run, unit, found[unit]["threshold"])
        assert realised == pytest.approx(found[unit]["realised_rate"], abs=1e-12)
        text = one(desktop, "#thresholds .origin").text
        assert "can be used on new images" in text
        assert desktop.execute_script("return document.activeElement.value") == percent
        assert ("3.23 % granted: the lowest rate that 30 normal patients" in text) == (
            rate < 1 / 31
        )


def test_a_slider_is_a_rate_too(page, run):
    slider = one(page, "#rate-0")
    for _ in range(3):
        slider.send_keys(Keys.ARROW_RIGHT)
    assert (
        one(page, '#thresholds [data-by="rate"] input[type="number"]').get_attribute("value")
        == "5.3"
    )
    calibration = read_calibration_set(run.calibration).calibration
    check_figures(page, run, "image", calibration.image_threshold(0.053))


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_a_threshold_by_score(desktop, run, unit):
    labels, scores = of_unit(run, unit)
    choose(desktop, "unit-0", unit)
    choose(desktop, "by-0", "score")
    score_input = one(desktop, '#thresholds [data-by="score"] input[type="number"]')
    marker = one(desktop, f'.histogram[data-unit="{unit}"] .threshold')
    places = []
    for threshold in (-0.5, float(np.median(scores)), 99.0, -99.0):
        write(score_input, repr(threshold))
        check_figures(desktop, run, unit, threshold)
        places.append(float(marker.get_attribute("transform").split("(")[1].split()[0]))
    assert places[3] == 0 < places[0] < places[1] < places[2] == 640
    assert "If it was chosen with the test labels" in one(desktop, "#thresholds .origin").text
    one(desktop, "#thresholds .best").click()
    check_figures(desktop, run, unit, thresholds.best_f1(labels, scores).threshold)
    assert "has the best F1 for the test labels" in one(desktop, "#thresholds .origin").text
    # The slider of the score moves the threshold, too.
    one(desktop, "#score-0").send_keys(Keys.ARROW_RIGHT)
    at, _ = shown_figures(desktop)
    assert at > thresholds.best_f1(labels, scores).threshold


def column(page, place):
    """The texts of one column of the visible patients."""
    return texts(page, f"#patients tbody tr > :nth-child({place + 1})")


def test_patients_are_found_sorted_and_chosen(page, run):
    labels, scores = of_unit(run, "patient")
    assert len(column(page, 0)) == 24
    assert HOSTILE in [button.get_attribute("title") for button in every(page, f"{FIRST} .name")]
    expected = [f"{score:,.5g}" for score in sorted(scores, reverse=True)]
    assert column(page, 3) == expected
    heading = every(page, f"{FIRST} thead th button")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", heading[3])
    heading[3].click()
    assert column(page, 3) == expected[::-1]
    assert every(page, f"{FIRST} thead th")[3].get_attribute("aria-sort") == "ascending"
    heading[0].click()
    assert column(page, 0)[1:4] == ["patient-0", "patient-1", "patient-2"]
    find = one(page, "#patients [data-find]")
    find.send_keys("PATIENT-1")
    assert set(column(page, 0)) == {"patient-1", *(f"patient-{i}" for i in range(10, 20))}
    assert one(page, "#patients .count").text == "11 of 24"
    find.send_keys("7")
    one(page, "#patients tbody tr:not([hidden]) .name").click()
    table = table_of(run)
    own = [row for row, group in enumerate(table.groups) if group == "patient-17"]
    assert len(every(page, f"{FIRST} .mark")) == len(own)
    anomalous = int(table.labels[own].sum())
    assert anomalous and len(every(page, f"{FIRST} .mark.anomalous")) == anomalous
    titles = [mark.get_attribute("textContent") for mark in every(page, f"{FIRST} .mark title")]
    assert sorted(title.split(":")[0] for title in titles) == sorted(table.ids[row] for row in own)


def test_decisions_on_patients_follow_the_threshold(desktop, run):
    labels, scores = of_unit(run, "patient")
    calibration = read_calibration_set(run.calibration).calibration
    for rate in (0.05, 0.4):
        write(one(desktop, '#thresholds [data-by="rate"] input[type="number"]'), f"{100 * rate:g}")
        called = scores > calibration.patient_threshold(rate)
        for kind, expected in (
            ("all", called == called),
            ("false positive", called & (labels == 0)),
            ("false negative", ~called & (labels == 1)),
            ("anomalous", labels == 1),
        ):
            Select(one(desktop, "#patients [data-show]")).select_by_value(kind)
            assert len(column(desktop, 0)) == expected.sum()
        Select(one(desktop, "#patients [data-show]")).select_by_value("all")
        words = column(desktop, 2)
        flagged = words.count("anomalous") + words.count("false positive")
        assert flagged == called.sum()
        assert f"false-positive rate of {100 * rate:g} %" in one(desktop, "#patients .at").text


TEXTS = ["body", ".muted", ".caption", "a", ".label", ".wrong", "thead th", ".choice span",
         "tr.model .interval", "summary", "#theme", ".name", "svg text"]  # fmt: skip


def test_dark_and_light_are_chosen_kept_and_readable(page):
    button = one(page, "#theme")
    dark = "rgb(21, 24, 27)"

    def background():
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    assert background() == "rgb(255, 255, 255)" and button.get_attribute("aria-pressed") == "false"
    contrasts = {
        ("light", text): ratio for text, ratio in page.execute_script(CONTRAST, TEXTS).items()
    }
    button.click()
    assert background() == dark and button.get_attribute("aria-pressed") == "true"
    contrasts |= {
        ("dark", text): ratio for text, ratio in page.execute_script(CONTRAST, TEXTS).items()
    }
    assert min(contrasts.values()) >= 4.5, contrasts
    page.refresh()
    assert background() == dark
    one(page, "#theme").click()
    set_media(page, prefers_color_scheme="dark")
    assert background() == "rgb(255, 255, 255)"  # a reader's choice stands
    page.execute_script("localStorage.clear()")
    page.refresh()
    assert background() == dark
    assert one(page, "#theme").get_attribute("aria-pressed") == "true"


def test_everything_that_is_used_has_a_name_and_is_reached_by_the_keyboard(desktop):
    controls = seen(desktop, "button, input, select, summary, [tabindex]")
    assert len(controls) > 20
    for control in controls:
        assert control.accessible_name.strip(), control.get_attribute("outerHTML")
        desktop.execute_script("arguments[0].focus()", control)
        if control.is_enabled():
            assert desktop.switch_to.active_element == control
    for image in seen(desktop, "img, svg[role=img]"):
        assert image.accessible_name.strip()
    identifiers = [element.get_attribute("id") for element in every(desktop, "[id]")]
    assert len(identifiers) == len(set(identifiers))


def test_nothing_is_fetched_and_no_text_becomes_markup(desktop):
    script = "return performance.getEntriesByType('resource').map((one) => one.name.slice(0, 5))"
    assert set(desktop.execute_script(script)) <= {"data:"}
    assert desktop.execute_script("return document.scripts.length") == 3
    # The content security policy blocks even scripts that are inserted into the page.
    desktop.execute_script(
        "const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
        "document.body.append(one);"
    )
    assert desktop.execute_script("return window.ran") is None
    assert "Content Security Policy" in desktop.get_log("browser")[0]["message"]


@pytest.mark.parametrize("width", WIDTHS)
def test_without_scripts_all_is_said_and_nothing_is_offered(driver, run, width):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        set_size(driver, *WIDTHS[width])
        driver.get(run.report.as_uri())
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert len(seen(driver, "#slices .case")) == 8
    assert len(column(driver, 0)) == 26
    assert len(seen(driver, ".histogram")) == 4
    assert not seen(driver, "#theme, .controls, .setting, .outcome, .profile")
    assert_fits(driver)


def test_a_print_has_all_cases_and_no_controls(desktop):
    set_media(desktop)
    desktop.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(seen(desktop, "#slices .case")) == 8
    assert len(column(desktop, 0)) == 26
    assert not seen(desktop, "#theme, .controls, .setting, .outcome, .profile, nav")


def test_runs_stand_side_by_side(page):
    assert len(seen(page, "#comparison .case")) == 8
    assert "another-run-with-quite-a-long-name" in one(page, "#comparison").text

"""A headless Chromium for tests, and helpers for what a reader does in it."""

import shutil

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
# `--no-sandbox`: containers run as root. The rest keeps Chromium from the network.
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


def find_browser():
    """The paths of Chromium (or Chrome) and its driver; None if one of them is missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def start(browser, driver, profile):
    """A browser with an empty profile that keeps its console log."""
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With an explicit path, Selenium does not search for a driver or download one.
    return webdriver.Chrome(options=options, service=Service(driver))


def set_media(driver, **features):
    named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": named})


def set_size(driver, width, height):
    sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)


def opened(driver, path, width="desktop"):
    """Opens the page as on a first visit, with an empty console log."""
    driver.get_log("browser")
    set_size(driver, *WIDTHS[width])
    set_media(driver, prefers_color_scheme="light")
    driver.get(path.as_uri())
    driver.execute_script("localStorage.clear()")
    driver.refresh()
    return driver


def assert_fits(driver):
    sizes = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    wanted, there = driver.execute_script(sizes)
    assert wanted == there


def one(root, selector):
    return root.find_element(By.CSS_SELECTOR, selector)


def every(root, selector):
    return root.find_elements(By.CSS_SELECTOR, selector)


def seen(root, selector):
    return [element for element in every(root, selector) if element.is_displayed()]


def choose(root, name, value):
    one(root, f'input[name="{name}"][value="{value}"]').find_element(By.XPATH, "..").click()


def write(element, text):
    element.send_keys(Keys.CONTROL, "a")
    element.send_keys(text)


def texts(driver, selector):
    """The texts of all visible elements, in one call."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter((one) => one.checkVisibility()).map((one) => one.innerText)",
        selector,
    )


#: Script that returns, by selector, the lowest contrast ratio (WCAG 2) of visible text.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const channels = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = (colour) => {
  const [r, g, b] = channels(colour).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (channels(colour)[3] === 255) return colour;
  }
  return "white";
};
return Object.fromEntries(arguments[0].map((selector) => [selector, Math.min(
  ...[...document.querySelectorAll(selector)].filter((one) => one.checkVisibility()).map((one) => {
    const style = getComputedStyle(one);
    const colour = one instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(colour), luminance(background(one))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }))]));
"""

"""The page to look at: what it says, and that a browser shows it."""

import builtins
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from jsonschema import validate
from selenium import webdriver
from selenium.webdriver.common.by import By

import recast
from recast.cli import command
from tests.checkpoints import save_shard, two_shards

SCHEMA = Path(__file__).parents[2] / "docs" / "recast.schema.json"
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Start a headless Chromium, without a network."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("there is no Chromium on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small model of two layers: noise, one layer exact in bf16, an overflow, a NaN."""
    folder = tmp_path_factory.mktemp("page") / "tiny <model>"
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0))
    tensors = {
        "model.layers.0.q.weight": noise,
        "model.layers.1.q.weight": noise.bfloat16().float(),
        "model.layers.0.k.weight": noise / 64,
        "model.layers.1.k.weight": torch.tensor([3.4e38, 1.0, torch.nan]),
        "model.norm.weight": noise * 8,
    }
    save_shard(folder / "model.safetensors", tensors)
    return folder


def converted(checkpoint: Path, target: Path) -> recast.Conversion:
    """Convert it, with one tensor kept."""
    plan = recast.plan(checkpoint, "bf16", keep=["*norm*"], allow=["overflow"])
    return recast.convert(plan, out=target)


def test_a_page_needs_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    """It names no other file and no host, and no name of a stranger is markup in it."""
    done = converted(checkpoint, tmp_path / "out")
    results = (
        done,
        recast.inspect(checkpoint),
        recast.scan(checkpoint),
        recast.verify(tmp_path / "out", against=checkpoint),
    )
    for result in results:
        recast.report(result, tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert not re.search(r"https?:|src=|href=|@import|url\(", page)
        assert "<model>" not in page


def test_a_browser_shows_what_was_done(
    browser: webdriver.Chrome, checkpoint: Path, tmp_path: Path
) -> None:
    """Figures, dtypes and errors by layer, and tables that are sorted by a click; no complaint."""
    done = converted(checkpoint, tmp_path / "out")
    recast.report(done, tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.get_log("browser") == []
    assert "converted to bfloat16" in browser.title
    tiles = {
        tile.find_element(By.TAG_NAME, "span").text: tile.find_element(By.TAG_NAME, "b").text
        for tile in browser.find_elements(By.CLASS_NAME, "tile")
    }
    total = done.total
    assert tiles["tensors cast"] == "4 of 5"
    assert tiles["of them lossless"] == str(total.lossless) == "1"
    assert tiles["values changed"] == f"{total.changed:,}"
    assert (tiles["became infinite"], tiles["NaN"]) == ("1", "1")
    dtypes, errors = browser.find_elements(By.CLASS_NAME, "map")
    cells = dtypes.find_elements(By.CSS_SELECTOR, "td.c-F32")
    assert ["norm" in cell.get_attribute("title") for cell in cells] == [True]
    (exact,) = errors.find_elements(By.CSS_SELECTOR, "td.c-exact")
    assert "model.layers.*.q.weight 1: lossless" in exact.get_attribute("title")
    (lost,) = errors.find_elements(By.CSS_SELECTOR, "td.c-overflow")
    assert "1 finite values became infinite" in lost.get_attribute("title")
    table = browser.find_element(By.CLASS_NAME, "rows")

    def column(number: int) -> list[str]:
        found = table.find_elements(By.CSS_SELECTOR, f"tbody td:nth-child({number})")
        return [cell.get_property("dataset").get("value", cell.text) for cell in found]

    changed = [each.changed for each in done.evidence]
    button = table.find_element(By.XPATH, ".//button[text()='values changed']")
    for ordered in (sorted(changed), sorted(changed, reverse=True)):
        button.click()
        assert [int(each) for each in column(5) if each] == ordered
    table.find_element(By.XPATH, ".//button[text()='tensor']").click()
    assert column(1) == sorted(column(1))


def test_a_page_says_what_became_infinite(tmp_path: Path) -> None:
    """Where nothing was rounded otherwise, no error is made up, nor is it called lossless."""
    save_shard(tmp_path / "x.safetensors", {"a": torch.tensor([1e5, 1.0])})
    done = recast.convert(tmp_path / "x.safetensors", "fp16", allow=["overflow"])
    recast.report(done, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0 of 1 cast tensors were rounded. 1 finite values became infinite." in page


def test_a_page_says_what_became_zero(tmp_path: Path) -> None:
    """A tensor of which nothing is left is a finding, and in the first sentence."""
    save_shard(tmp_path / "x.safetensors", {"a": torch.randn(9), "gone": torch.full((9,), 1e-9)})
    recast.report(recast.convert(tmp_path / "x.safetensors", "fp16"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Of 1, every value that was not zero became zero." in page
    assert "vanished-values" in page
    assert "9 of them to zero in gone" in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_can_be_read_in_light_and_dark(
    browser: webdriver.Chrome, checkpoint: Path, tmp_path: Path, scheme: str
) -> None:
    """Text differs from its ground as WCAG asks of small text, and nothing sticks out."""
    recast.report(converted(checkpoint, tmp_path / "out"), tmp_path / "page.html")
    emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    browser.get((tmp_path / "page.html").as_uri())
    body = browser.find_element(By.TAG_NAME, "body")
    ground = luminance(body.value_of_css_property("background-color"))
    for element in (body, browser.find_element(By.CLASS_NAME, "lead")):
        ink = luminance(element.value_of_css_property("color"))
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5
    assert (ground > 0.5) == (scheme == "light")
    width = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert browser.execute_script(width)


def test_a_page_can_be_read_without_a_mouse_and_on_a_phone(
    browser: webdriver.Chrome, checkpoint: Path, tmp_path: Path
) -> None:
    """Heads have a scope, what scrolls takes the focus and has a name, the order is told."""
    recast.report(converted(checkpoint, tmp_path / "out"), tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    for head in browser.find_elements(By.TAG_NAME, "th"):
        assert head.get_attribute("scope") in {"row", "col"}
    regions = browser.find_elements(By.CLASS_NAME, "scroll")
    assert len(regions) == 3
    for region in regions:
        assert (region.aria_role, region.get_attribute("tabindex")) == ("region", "0")
        assert region.accessible_name
    (ordered,) = browser.find_elements(By.CSS_SELECTOR, "[aria-sort]")
    assert (ordered.text.split(" \u2193")[0], ordered.get_attribute("aria-sort")) == (
        "largest error",
        "descending",
    )
    bars = browser.find_elements(By.CSS_SELECTOR, ".bar > [role=img]")
    assert "bfloat16: 390 B in 4 tensors" in bars[1].accessible_name
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    labels = browser.find_elements(By.CSS_SELECTOR, ".map th[scope=row]")
    assert all(40 < label.size["width"] < 200 for label in labels)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_page_of_a_checkpoint_says_what_loads_and_what_to_type(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    """Each program and what it is told has its row; a finding's command can be copied."""
    source = two_shards(tmp_path / "ckpt")
    (source / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    recast.report(recast.inspect(source), tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    loads = browser.find_elements(By.CLASS_NAME, "rows")[0]
    rows = [row.text for row in loads.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert rows[0] == "transformers 5 default float32 bfloat16"
    assert len(rows) == 8
    (code,) = browser.find_elements(By.TAG_NAME, "code")
    assert code.text == f"recast {source} --fix-config"
    labels = [bar.text for bar in browser.find_elements(By.CSS_SELECTOR, ".bar > span:first-child")]
    assert labels == ["stored", "as bf16"]


def test_layers_that_are_not_drawn_are_counted(tmp_path: Path) -> None:
    """A map has at most 200 layers, and says how many more there are."""
    tensors = {f"model.layers.{number}.w.weight": torch.ones(1) for number in range(250)}
    save_shard(tmp_path / "x.safetensors", tensors)
    recast.report(recast.inspect(tmp_path / "x.safetensors"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "250 tensors in 1 weights file." in page
    assert "These are the first 200 layers; 50 more are not drawn." in page


def luminance(colour: str) -> float:
    """Return the relative luminance of a CSS colour, as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [
        each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    """--report goes with every mode but a dry run, and does not change what is printed."""
    source = two_shards(tmp_path / "ckpt")
    page = tmp_path / "page.html"
    for flags, title in (
        ([], "what is stored"),
        (["--scan"], "what its values need"),
        (["--to", "bf16"], "converted to bfloat16"),
    ):
        answer = CliRunner().invoke(command, [str(source), *flags, "--report", str(page)])
        assert answer.exit_code == 0, answer.output
        assert title in page.read_text(encoding="utf-8")
    flags = ["--against", str(source), "--report", str(page)]
    answer = CliRunner().invoke(command, [str(tmp_path / "ckpt-bf16"), *flags])
    assert answer.exit_code == 0
    assert "verified against ckpt" in page.read_text(encoding="utf-8")
    flags = ["--to", "bf16", "-n", "--report", str(page)]
    assert CliRunner().invoke(command, [str(source), *flags]).exit_code == 2


def test_without_jinja_the_way_out_is_said(tmp_path: Path, monkeypatch) -> None:
    """Who did not install the extra is told which it is, before anything is converted."""
    source = two_shards(tmp_path / "ckpt")
    found = recast.inspect(source)
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(recast.RecastError, match=r"recast\[report\]"):
        recast.report(found, tmp_path / "page.html")
    line = [str(source), "--to", "bf16", "--report", str(tmp_path / "page.html"), "--json"]
    answer = CliRunner().invoke(command, line)
    assert answer.exit_code == 1
    validate(json.loads(answer.stdout), json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [each["kind"] for each in json.loads(answer.stdout)["results"]] == ["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]


@pytest.mark.parametrize("flags", [(), ("--scan",), ("--to", "bf16"), ("--to", "bf16", "-q")])
def test_a_page_replaces_nothing_but_a_page(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Weights, other files, folders and pipes stay as they are, and nothing else is done."""
    source = two_shards(tmp_path / "ckpt")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place in (*before, tmp_path / "pipe", source):
        line = [str(source), *flags, "--report", str(place)]
        answer = CliRunner().invoke(command, line)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert answer.stderr == (
            f"recast: {place}: is there, and is no page of recast's; write the page elsewhere\n"
        )
        with pytest.raises(recast.TargetError):
            recast.report(recast.inspect(source), place)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_where_no_page_can_be_written_nothing_is_done(tmp_path: Path) -> None:
    """A folder that is not there, or too long a name, is told before anything is converted."""
    source = two_shards(tmp_path / "ckpt")
    for place, said in (
        (tmp_path / "none" / "page.html", f"{tmp_path / 'none'} is no folder; make it, or"),
        (source / "config.json" / "page.html", "config.json is no folder"),
        (tmp_path / f"{'x' * 300}.html", "File name too long; choose a shorter name"),
    ):
        line = [str(source), "--to", "bf16", "--report", str(place)]
        answer = CliRunner().invoke(command, line)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert said in answer.stderr
        with pytest.raises(recast.RecastError, match=str(place)):
            recast.report(recast.inspect(source), place)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_one_may_not_write_to(tmp_path: Path) -> None:
    """It is told before anything is converted."""
    source = two_shards(tmp_path / "ckpt")
    (tmp_path / "shut").mkdir(mode=0o555)
    line = [str(source), "--to", "bf16", "--report", str(tmp_path / "shut" / "page.html")]
    answer = CliRunner().invoke(command, line)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "shut cannot be written to" in answer.stderr
    assert not (tmp_path / "ckpt-bf16").exists()


def test_what_was_done_is_said_though_no_page_shows_it(tmp_path: Path) -> None:
    """If the page fails in the end, the result is told first, and the failure after it."""
    for number, form in enumerate(("text", "--json")):
        source = two_shards(tmp_path / f"{number}" / "ckpt")
        target = f"{source}-bf16"  # a folder by the time when the page is written
        line = [str(source), "--to", "bf16", "--report", target]
        answer = CliRunner().invoke(command, [*line, *({form} - {"text"})])
        assert answer.exit_code == 1
        assert f"recast: {target}: is there, and is no page of recast's" in answer.stderr
        if form == "text":
            assert answer.stdout.startswith(f"{target}: bfloat16, ")
        else:
            printed = json.loads(answer.stdout)
            validate(printed, json.loads(SCHEMA.read_text(encoding="utf-8")))
            assert [each["kind"] for each in printed["results"]] == ["conversion", "error"]
            assert printed["results"][0]["evidence"]["tensors"] == 4
        assert recast.verify(target, against=source).holds


def test_a_page_of_what_was_there_already_claims_no_measurement(tmp_path: Path) -> None:
    """It says so, and the command that checks it, which holds; nor does the document have zeros."""
    source = two_shards(tmp_path / "ckpt")
    page = tmp_path / "page.html"
    line = [str(source), "--to", "bf16", "--report", str(page), "--json"]
    shown, evidence = [], []
    for _ in range(2):
        answer = CliRunner().invoke(command, line)
        assert answer.exit_code == 0, answer.output
        evidence.append(json.loads(answer.stdout)["results"][0]["evidence"])
        shown.append(page.read_text(encoding="utf-8"))
    assert evidence[0]["changed_values"] > 0
    assert evidence[1] is None
    for measured in ("values changed</span>", "became infinite</span>", "NaN</span>"):
        assert [measured in each for each in shown] == [True, False]
    assert "was there already" in shown[1]
    assert "Nothing had to be cast" not in shown[1]
    check = f"recast {source}-bf16 --against {source}"
    assert [check in each for each in shown] == [False, True]
    assert CliRunner().invoke(command, check.split()[1:]).exit_code == 0


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    """If the disk fails, the page that was there is still there, and nothing beside it."""
    found = recast.inspect(two_shards(tmp_path / "ckpt"))
    recast.report(found, tmp_path / "page.html")
    before = (tmp_path / "page.html").read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(recast.StorageError, match="No space left"):
            recast.report(recast.scan(tmp_path / "ckpt"), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"ckpt", "page.html"}
    recast.report(recast.scan(tmp_path / "ckpt"), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() != before

"""The main job in a real browser on the real stack: drop, caption, train, watch, try, download."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from app.supervisor.guard import descendants
from app.supervisor.lock import LOCK_NAME
from bench import load
from tests.app.supervisor.conftest import alive, wait_until
from tests.browser.test_datasets import DROP
from tests.stack.conftest import Stack, poll, stop_stack
from tests.worker.bases.tiny_zimage import save_zimage
from worker.core.starter.examples import CHALKBOARD

pytestmark = [pytest.mark.stack, pytest.mark.browser, pytest.mark.timeout(1_800)]

PATIENCE_SECONDS = 600.0  # generous: it is the longest test of a suite that shares two cores
PATIENCE_MS = 240_000
PICTURES = 24

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def page(chromium: Browser, stack: Stack) -> Page:
    context = chromium.new_context(base_url=stack.url, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def example_files() -> list[Path]:
    pictures = sorted(
        file for file in CHALKBOARD.folder.iterdir() if file.suffix in (".png", ".webp")
    )
    return pictures[:PICTURES]


class Actions(list[str]):
    """What a person does, in words; to look and to wait are no actions."""

    def __call__(self, words: str, act: Callable[[], object]) -> None:
        """Do it, and count it."""
        self.append(words)
        act()


def dropped(files: Sequence[Path]) -> list[list[str]]:
    """Files as the script that drops them takes them."""
    return [[one.name, "image/webp", b64encode(one.read_bytes()).decode()] for one in files]


def test_a_person_trains_a_style_tries_it_and_takes_it_home(
    page: Page, api: httpx.Client, tmp_path: Path
) -> None:
    # Images of one's own become a dataset with captions.
    act = Actions()
    # the link of the first page, which the tests before have filled
    act("Use my own images", lambda: page.goto("/datasets#field-name"))
    act("the name", lambda: page.get_by_label("Name", exact=True).fill("My chalk"))
    act("the trigger word", lambda: page.locator("#field-trigger_word").fill("chalkboard"))
    act("drop the images", lambda: page.evaluate(DROP, dropped(example_files())))
    page.wait_for_url("**/datasets/my-chalk*")
    expect(page.locator("[data-tile]")).to_have_count(PICTURES)
    act("Write captions for me", page.get_by_role("link", name="Write captions for me").first.click)
    act("File names", page.get_by_role("radio", name=re.compile("^File names")).check)
    act("Write captions", page.get_by_role("button", name="Write captions", exact=True).click)
    expect(page.locator("#results")).to_contain_text(f"{PICTURES} captions written")
    act("Train this style", page.get_by_role("link", name="Train this style").click)
    act("Add the word to all", page.get_by_role("button", name="Add “chalkboard” to all").click)
    expect(page.get_by_role("button", name="Add “chalkboard” to all")).to_have_count(0)

    # A file that is none is named.
    page.goto("/datasets/my-chalk")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no picture")
    page.locator("input[type=file]").first.set_input_files(broken)
    expect(page.get_by_text("broken.png").first).to_be_visible()

    # A caption saves itself.
    caption = page.locator("[data-tile] textarea").first
    caption.fill("fox, chalkboard style")
    expect(page.locator("[data-tile]").first).to_contain_text("Saved")
    place = caption.get_attribute("id")  # files come in side by side: another may be first later
    page.reload()
    expect(page.locator(f"#{place}")).to_have_value("fox, chalkboard style")

    # Start a short training on small images, of the text encoder too; all else is the preset's.
    page.get_by_role("link", name="Train this style").click()
    page.wait_for_url("**/train/new*")
    page.get_by_text("Quick").first.click()
    page.locator("summary", has_text="Advanced").click()
    while (folded := page.locator("#advanced details:not([open]) > summary")).count():
        folded.first.click()
    page.get_by_label("Steps", exact=True).fill("30")
    page.get_by_label("Resolution", exact=True).fill("64")
    page.get_by_role("checkbox", name="Train the text encoder").check()
    act("Start training", lambda: page.keyboard.press("Control+Enter"))
    page.wait_for_url(re.compile(r"/runs/\d+"))
    assert len(act) <= 10, act
    run_page = page.url
    run_id = int(run_page.rsplit("/", 1)[1])
    expect(page.get_by_text(re.compile(r"Step \d+ of 30")).first).to_be_visible(timeout=60_000)

    # Watch it end; a second tab sees the same.
    run = poll(api, f"/runs/{run_id}", seconds=PATIENCE_SECONDS)
    assert run["status"] == "succeeded", run
    expect(page.get_by_role("link", name=re.compile("try it", re.I)).first).to_be_visible()
    second = page.context.new_page()
    second.goto(run_page)
    expect(second.get_by_text("30").first).to_be_visible()
    second.close()
    samples = api.get(f"/api/v1/runs/{run_id}/samples").json()
    assert {row["step"] for row in samples} >= {0, 30}
    expect(page.locator("img[src^='/media/']").first).to_be_visible()

    # Try it at once, with another weight, and take the file home.
    act = Actions(["Try Chalkboard", "Train this style", "Quick look", "Start training"])
    act("Try it", page.get_by_role("link", name=re.compile("try it", re.I)).first.click)
    page.wait_for_url("**/play*")
    shown = expect(page.locator("#result img").first)
    shown.to_be_visible()  # the training sample
    sample = page.locator("#result img").first.get_attribute("src") or ""
    slider = page.get_by_label(re.compile("^Weight of .*, slider$")).first
    act("move the weight", lambda: slider.fill("0.7"))
    shown.not_to_have_attribute("src", sample)
    play = page.url
    act("the adapter", page.locator("#stack a[href^='/adapters/']").first.click)
    page.wait_for_url("**/adapters/my-chalk*")
    with page.expect_download() as download:
        act("Download", page.get_by_role("link", name="Download", exact=True).first.click)
    assert len(act) <= 8, act
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "my-chalk-v1.safetensors"
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert any(key.startswith("lora_unet_") for key in header)
    assert any(key.startswith("lora_te_") for key in header)
    assert header["__metadata__"]["ss_output_name"] == file.stem

    # The same seed is drawn beside it without the adapter.
    page.goto(play)
    page.get_by_label("Prompt", exact=True).fill("castle, chalkboard style")
    page.get_by_role("button", name=re.compile("^generate", re.I)).click()
    expect(page.locator("#result .comparison img")).to_have_count(2)


def test_weights_change_the_picture_and_zero_is_the_base(api: httpx.Client) -> None:
    adapter = api.get("/api/v1/adapters").json()[0]
    pictures = {}
    for weight in (0.0, 1.0, None):
        stack = [] if weight is None else [{"id": adapter["id"], "weight": weight}]
        created = api.post(
            "/api/v1/renders",
            json={"prompt": "castle", "seed": 3, "steps": 4, "adapters": stack},
        ).json()
        render = poll(api, f"/renders/{created['id']}", seconds=PATIENCE_SECONDS)
        assert render["status"] == "succeeded", render
        pictures[weight] = render["images"][0]["url"]
    assert pictures[0.0] == pictures[None]
    assert pictures[1.0] != pictures[None]


def test_tabs_that_move_a_weight_at_once_each_see_their_own(
    api: httpx.Client, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = api.get("/api/v1/adapters").json()[0]
    first = max((one.key for one in load.drafts_since(stack.data_dir, 0)), default=0) + 1
    found = load.load(stack.url, adapter["slug"], tabs=2, seconds=1, steps=2)
    drafts = load.drafts_since(stack.data_dir, first)
    load.print_load(found, drafts, seconds=1)
    assert [len(tab.seen) for tab in found.tabs] == [1, 1]
    assert "2 in 1 s" in capsys.readouterr().out
    last = found.tabs[0].seen.popitem()
    found.tabs[0].seen[last[0]] = last[1] + 1
    with pytest.raises(load.LoadError, match="another weight"):
        load.check(found, drafts)


def test_an_image_does_not_wait_for_a_training_run(api: httpx.Client, stack: Stack) -> None:
    headers = {"origin": stack.url}
    httpx.post(f"{stack.url}/example", headers=headers, timeout=PATIENCE_SECONDS)
    dataset = api.get("/api/v1/datasets").json()[0]
    config = {"steps": 50_000, "sample_prompts": [], "resolution": 64, "batch_size": 1}
    body = {"dataset_id": dataset["id"], "config": config}
    run = api.post("/api/v1/runs", json=body).raise_for_status().json()
    place = f"/api/v1/runs/{run['id']}"
    wait_until(lambda: api.get(place).json()["step"] > 0, seconds=PATIENCE_SECONDS)
    created = api.post("/api/v1/renders", json={"prompt": "a fox", "seed": 4, "steps": 4}).json()
    render = poll(api, f"/renders/{created['id']}", seconds=PATIENCE_SECONDS)
    assert (render["status"], render["from_cache"]) == ("succeeded", False)
    assert api.get(place).json()["status"] == "running"
    api.post(f"{place}/cancel").raise_for_status()
    assert poll(api, f"/runs/{run['id']}", seconds=PATIENCE_SECONDS)["status"] == "canceled"


@pytest.mark.parametrize(
    ("file_format", "dtype"), [("kohya", "bf16"), ("peft", "fp32"), ("bundle", "bf16")]
)
def test_every_download_is_written_when_it_is_asked_for(
    api: httpx.Client, file_format: str, dtype: str
) -> None:
    adapter = api.get("/api/v1/adapters").json()[0]
    answer = api.get(
        f"/api/v1/adapters/{adapter['id']}/download?format={file_format}&dtype={dtype}"
    )
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 10_000
    assert answer.content[:2] == (b"PK" if file_format == "bundle" else answer.content[:2])


def test_a_downloaded_file_that_is_imported_again_is_the_same_adapter(api: httpx.Client) -> None:
    adapter = api.get("/api/v1/adapters").json()[0]
    content = api.get(f"/api/v1/adapters/{adapter['id']}/download?dtype=fp32").content
    answer = api.post("/api/v1/adapters/import", files={"file": ("copy.safetensors", content)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == adapter["id"]


def test_a_style_is_trained_on_a_transformer_tried_on_its_turbo_and_taken_home(
    page: Page, api: httpx.Client, stack: Stack, tmp_path: Path
) -> None:
    # Add both from folders.
    bases = {}
    for name, shift in (("Z-Image", 6.0), ("Z-Image-Turbo", 3.0)):
        folder = str(save_zimage(tmp_path / name, shift=shift))
        page.goto("/base-models")
        page.locator("#source").fill(folder)
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.locator("tr").filter(has=page.get_by_text(folder))).to_contain_text("Ready")
        listed = api.get("/api/v1/base-models").json()
        bases[name] = next(base for base in listed if base["source"] == folder)
    assert [bases[name]["variant"] for name in bases] == ["base", "turbo"]

    # Train on the base; its Turbo is refused before the start.
    httpx.post(f"{stack.url}/example", headers={"origin": stack.url}, timeout=PATIENCE_SECONDS)
    dataset = api.get("/api/v1/datasets").json()[0]
    form = f"/train/new?dataset={dataset['slug']}&base="
    page.goto(form + bases["Z-Image-Turbo"]["slug"])
    refusal = page.locator("#this-run").get_by_text("Train on Z-Image, and use the adapter on")
    expect(refusal).to_be_visible()
    page.goto(form + bases["Z-Image"]["slug"])
    expect(page.locator("#this-run")).to_contain_text("Captions on disk")
    page.get_by_label("Name", exact=True).fill("On Z-Image")
    page.locator("#sample_prompts").fill("castle --s 2")
    page.locator("summary", has_text="Advanced").click()
    while (folded := page.locator("#advanced details:not([open]) > summary")).count():
        folded.first.click()
    assert page.get_by_label("CLIP skip").count() == 0
    typed = {"steps": "8", "resolution": "64", "learning_rate": "0.01", "checkpoint_every": "4"}
    for name, text in typed.items():
        page.locator(f"#{name}").fill(text)
    page.keyboard.press("Control+Enter")
    page.wait_for_url(re.compile(r"/runs/\d+"))

    # Watch it end.
    run = poll(api, f"/runs/{page.url.rsplit('/', 1)[1]}", seconds=PATIENCE_SECONDS)
    assert run["status"] == "succeeded", run
    expect(page.get_by_role("link", name=re.compile("try it", re.I)).first).to_be_visible()
    place = f"/api/v1/adapters/{run['adapter_id']}"
    adapter = api.get(place).json()
    assert adapter["base_family"] == "zimage"

    # Move its weight on the Turbo, and see it at nine.
    page.goto(f"/play?adapter={adapter['slug']}&base={bases['Z-Image-Turbo']['slug']}&steps=2")
    page.get_by_label("Prompt", exact=True).fill("a castle")
    expect(page.locator("#weight-0")).to_have_value("2")
    page.get_by_label(re.compile("^Weight of .*, slider$")).fill("2.5")
    expect(page.locator("#result img").first).to_be_visible()
    page.get_by_role("button", name="at nine weights").click()
    expect(page.locator("#strip img")).to_have_count(9)
    expect(page.locator("#strip")).to_contain_text("3.00")

    # Each base and weight is another image.
    images = set()
    for base in bases.values():
        for weight in (0.0, 2.0):
            request = {
                "prompt": "a castle",
                "seed": 3,
                "steps": 2,
                "base_model": base["id"],
                "adapters": [{"id": adapter["id"], "weight": weight}],
            }
            created = api.post("/api/v1/renders", json=request).raise_for_status().json()
            render = poll(api, f"/renders/{created['id']}", seconds=PATIENCE_SECONDS)
            assert render["status"] == "succeeded", render
            images.add(render["images"][0]["url"])
    assert len(images) == 4

    # Take the file home, and import it again.
    page.goto(f"/adapters/{adapter['slug']}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).first.click()
    file = tmp_path / "again.safetensors"
    download.value.save_as(file)
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    names = header.keys() - {"__metadata__"}
    assert all(name.startswith("diffusion_model.layers.") for name in names)
    assert not any(name.endswith(".alpha") for name in names)
    api.delete(place).raise_for_status()
    page.goto("/adapters")
    page.locator("input[type=file]").first.set_input_files(file)
    again = page.locator("#import-panel a[href^='/adapters/']")
    expect(again).to_be_visible()
    slug = (again.get_attribute("href") or "").removeprefix("/adapters/").partition("?")[0]
    assert api.get(f"/api/v1/adapters/{slug}").json()["base_family"] == "zimage"


def test_an_import_of_broken_tensors_says_why(api: httpx.Client) -> None:
    answer = api.post(
        "/api/v1/adapters/import",
        files={"file": ("bad.safetensors", struct.pack("<Q", 200) + b"{" + b" " * 40)},
    )
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_it_says_once_where_it_is_and_a_second_start_says_so_too_and_ctrl_c_ends_all(
    stack: Stack,
) -> None:
    """The last test of those that share the stack: it ends it."""
    assert "</html>" in httpx.get(f"{stack.url}/", timeout=PATIENCE_SECONDS).text
    assert "\n".join(stack.output).count("Brushwork is ready at") == 1

    second = subprocess.run(
        stack.command, cwd=stack.data_dir, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert second.returncode == 0
    assert f"Brushwork already runs at {stack.url}" in second.stdout

    pids = [stack.process.pid, *descendants(stack.process.pid)]
    running = [one for one in psutil.process_iter(["cmdline"]) if one.pid in pids]
    commands = [" ".join(one.info["cmdline"] or []) for one in running]
    for queue in ("train", "render", "io"):
        assert any(f"--queue {queue}" in command for command in commands)
    assert stop_stack(stack) == 0, stack.logs()
    assert not any(alive(pid) for pid in pids)
    assert (stack.data_dir / LOCK_NAME).read_text() == ""
    wait_until(lambda: stack.output[-1] == "Stopped.")

"""Runs as a person meets them: choose, watch, look closely, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect
from sqlmodel import select

from app.registry.runs import service
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.browser.conftest import Live
from worker.core.training.presets import Preset

pytestmark = pytest.mark.browser

NOTIFICATIONS = """
if (location.protocol !== "about:") {
  window.shown = [];
  window.Notification = class extends EventTarget {
    static permission = localStorage.getItem("permission") ?? "default";
    static async requestPermission() {
      localStorage.setItem("permission", (this.permission = "granted"));
    }
    constructor(title) {
      super();
      shown.push(this);
      const all = JSON.parse(localStorage.getItem("shown") ?? "[]");
      localStorage.setItem("shown", JSON.stringify([...all, title]));
    }
    close() {}
  };
}
"""
"""A stand-in for the notifications of the system: `shown` in the storage has their titles."""


def test_the_summary_follows_the_choices_and_changes_survive_another_preset(
    live: Live, page: Page
) -> None:
    fake_workers.measured_base(live.state)
    fake_workers.dataset(live.state, pictures=24)
    page.goto("/train/new?preset=quick")
    facts = page.locator("#this-run")
    quick, thorough = map(fake_workers.embedded_preset, (Preset.QUICK, Preset.THOROUGH))
    seen = round(quick.steps * quick.batch_size / 20)  # four are held out
    expect(facts).to_contain_text(re.compile(rf"Each image is seen (about )?{seen} times\."))
    expect(facts.locator("dd").first).to_have_text(f"{quick.steps:,}")
    page.get_by_text("Advanced").click()
    page.locator("#settings-adapter > summary").click()
    page.get_by_label("Alpha", exact=True).fill("2")
    expect(page.locator("#advanced-facts")).to_contain_text("1 changed")
    expect(
        page.locator("[data-setting]", has=page.locator("#alpha")).get_by_text("changed")
    ).to_be_visible()
    page.get_by_role("radio", name=re.compile("Thorough")).check()
    expect(facts).to_contain_text(f"{thorough.steps:,}")
    expect(page.get_by_label("Rank", exact=True)).to_have_value(str(thorough.rank))
    expect(page.get_by_label("Alpha", exact=True)).to_have_value("2")
    expect(page.locator("#form-status")).to_contain_text("another preset: Alpha.")
    expect(page.get_by_role("radio", name=re.compile("Thorough"))).to_be_focused()
    page.get_by_label("Steps", exact=True).fill("600")
    expect(facts).to_contain_text("Each image is seen 240 times.")
    expect(facts.locator("dd").first).to_have_text("600")
    expect(page.get_by_label("Steps", exact=True)).to_be_focused()
    tick = page.get_by_role("checkbox", name="Evaluate at the end")
    tick.press("Space")
    expect(facts).to_contain_text("Each image is seen 200 times.")
    expect(page.locator("#validation_share")).to_have_value("0")
    expect(tick).to_be_focused()
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Chalk")
    with live.database.read() as session:
        (run,) = session.exec(select(Run))
    assert (run.total_steps, run.config["alpha"], run.config["rank"]) == (600, 2.0, thorough.rank)
    assert (run.config["evaluate"], run.config["validation_share"]) == (False, 0)


def test_a_base_model_added_in_another_tab_is_chosen_in_the_form(live: Live, page: Page) -> None:
    fake_workers.dataset(live.state)
    page.goto("/train/new")
    page.get_by_label("Name", exact=True).fill("Mine")
    with page.expect_popup() as tab:
        page.get_by_role("link", name="Add a base model").click()
    expect(tab.value.get_by_role("heading", name="Base models")).to_be_visible()
    with live.database.write() as session:
        session.add(BaseModel(slug="sd", name="SD", source="hub", status="checking"))
    page.evaluate("dispatchEvent(new Event('focus'))")  # of a window without a screen
    expect(page.get_by_label("Base model", exact=True)).to_have_value("sd")
    expect(page.get_by_label("Name", exact=True)).to_have_value("Mine")


def test_errors_come_with_a_summary_that_leads_into_the_closed_settings(
    live: Live, page: Page
) -> None:
    fake_workers.ready_base(live.state)
    fake_workers.dataset(live.state)
    page.goto("/train/new")
    page.get_by_text("Advanced").click()
    page.locator("#settings-learning > summary").click()
    page.get_by_label("Learning rate", exact=True).fill("fast")
    for name in ("#settings-learning", "#advanced"):
        page.locator(f"{name} > summary").click()
    page.get_by_role("button", name="Start training").click()
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    summary.get_by_role("link", name="Learning rate").click()
    field = page.get_by_label("Learning rate", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_value("fast")
    expect(field).to_have_accessible_description(re.compile("Enter a number"))
    field.fill("0.0002")
    expect(page.locator("#learning_rate-error")).to_have_count(0)
    expect(field).not_to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("#form-errors")).to_be_hidden()
    expect(page.locator("#form-status")).to_contain_text("Learning rate is valid now.")
    # a wrong value is told when its field is left, not while it is typed
    page.locator("#settings-adapter > summary").click()
    rank = page.get_by_label("Rank", exact=True)
    rank.fill("0")
    expect(page.locator("#this-run")).to_contain_text("1 setting has an error")
    expect(page.locator("#rank-error")).to_have_count(0)
    rank.press("Tab")
    expect(rank).to_have_accessible_description(re.compile("At least 1"))
    expect(page.locator("#form-status")).to_contain_text("Rank: ")


def test_settings_are_copied_without_tls_and_pasted_into_the_form(live: Live, page: Page) -> None:
    fake_workers.ready_base(live.state)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state), rank=3)
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.goto(f"/runs/{run.key}")
    copy = page.get_by_role("button", name="Copy as JSON")
    copy.click()
    expect(page.locator("#run-settings")).to_contain_text("Copied")
    page.goto("/train/new")
    page.get_by_label("Name", exact=True).fill("Mine")
    page.get_by_text("Paste settings").click()
    field = page.get_by_label("Settings as JSON")
    field.press("ControlOrMeta+v")
    expect(field).to_have_value(re.compile('"rank": 3'))
    field.evaluate("field => field.value += ' '.repeat(100_000)")
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#pasted-error")).to_contain_text("These are no settings")
    field.evaluate("field => field.value = field.value.trim()")
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#paste").get_by_role("status")).to_be_focused()
    expect(page.get_by_label("Name", exact=True)).to_have_value("Mine")
    page.get_by_text("Advanced").click()
    expect(page.get_by_label("Rank", exact=True)).to_have_value("3")


def test_a_choice_is_not_lost_behind_what_is_typed_meanwhile(live: Live, page: Page) -> None:
    fake_workers.measured_base(live.state)
    fake_workers.dataset(live.state)
    page.goto("/train/new")
    page.locator("#advanced > summary").click()
    for fold in ("adapter", "learning"):
        page.locator(f"#settings-{fold} > summary").click()
    rate = page.get_by_label("Learning rate", exact=True)
    before = rate.input_value()
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        held.append(route)
        if len(held) > 1:
            route.continue_()

    page.route("**/train/new/plan*", hold_the_first)
    page.get_by_label("Rank", exact=True).fill("5")
    while not held:
        page.wait_for_timeout(50)
    page.get_by_label("Optimizer", exact=True).select_option("prodigy")
    page.get_by_label("Alpha", exact=True).fill("2")
    page.wait_for_timeout(600)  # its request takes the place of the one that waits
    held[0].continue_()
    expect(rate).not_to_have_value(before)


def test_settings_fold_are_searched_and_go_back_to_the_preset(live: Live, page: Page) -> None:
    fake_workers.measured_base(live.state)
    fake_workers.dataset(live.state)
    preset = fake_workers.embedded_preset(Preset.BALANCED)
    page.goto("/train/new")
    rank, alpha = (page.get_by_label(name, exact=True) for name in ("Rank", "Alpha"))
    found, status = page.locator("#settings-found"), page.locator("#form-status")
    page.keyboard.press("/")
    page.keyboard.type("LR")
    expect(found).to_have_text(re.compile(r"^\d settings match “LR”\.$"))
    expect(page.get_by_label("Learning rate", exact=True)).to_be_visible()
    expect(page.locator("#settings-adapter")).to_be_hidden()
    expect(status).to_contain_text("settings match “LR”")
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(page.locator("#settings-learning")).not_to_have_attribute("open", "")
    page.locator("#settings-adapter > summary").click()
    for _ in range(2):  # what a person opens is remembered
        page.locator("#advanced > summary").click()
    page.reload()
    expect(rank).to_be_visible()
    # one goes back, and stays where it is
    alpha.fill("2")
    page.get_by_role("button", name="Only what I changed").click()
    expect(found).to_have_text("1 changed setting.")
    expect(rank).to_be_hidden()
    page.get_by_role("button", name="Reset Alpha to").click()
    expect(alpha).to_be_focused()
    expect(alpha).to_have_value(f"{preset.alpha:g}")
    expect(status).to_contain_text("Alpha is")
    page.get_by_role("button", name="Only what I changed").click()
    # all go back, and return
    rank.fill("5")
    alpha.fill("2")
    reset = page.get_by_role("button", name="Reset all")
    reset.click()
    expect(rank).to_have_value(str(preset.rank))
    expect(reset).to_be_focused()
    page.get_by_role("button", name="Undo").click()
    expect(rank).to_have_value("5")
    expect(alpha).to_have_value("2")
    # an answer that replaces the fields leaves the focus and the groups
    page.locator("#settings-learning > summary").click()
    optimizer = page.get_by_label("Optimizer", exact=True)
    optimizer.focus()
    optimizer.select_option("prodigy")
    expect(page.get_by_label("Learning rate", exact=True)).to_have_value("1")
    expect(optimizer).to_be_focused()


def test_a_run_is_watched_from_the_queue_to_its_adapter_without_a_reload(
    live: Live, page: Page
) -> None:
    fake_workers.ready_base(live.state)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    page.goto(f"/runs/{run.key}")
    expect(page.locator("#run-progress")).to_contain_text("Waiting for a worker")
    expect(page.locator("#run-log time").first).to_have_text(re.compile(r"^\d\d:\d\d$"))
    assert page.locator(".chart").evaluate("chart => chart.offsetHeight") == 0
    training = fake_workers.FakeTraining(live.state)
    training.train(10)
    training.sample(0)
    expect(page).to_have_title("25 % · Chalk · Brushwork")
    expect(page.locator("#run-progress")).to_contain_text("Step 10 of 40")
    expect(page.locator("#sample-0-1 img")).to_be_visible()
    expect(page.locator(".chart-loss canvas")).to_be_visible()
    expect(page.get_by_role("button", name="Notify me when a run ends")).to_be_visible()
    expect(page.locator("#run-side")).to_contain_text("281,000 of 19.3 M")
    page.get_by_role("button", name="Sample now").click()
    expect(page.get_by_role("button", name="Sampling soon…")).to_be_visible()
    training.train(30)
    training.sample(40)
    training.finish()
    expect(page.locator("#run-progress")).to_contain_text("Trained 40 steps")
    expect(page.locator("#run-progress")).not_to_have_attribute("hx-trigger", re.compile(".*"))
    page.get_by_role("link", name="See the adapter").click()
    expect(page).to_have_url(re.compile(r"/adapters/chalk\?v=1$"))


def test_one_notification_tells_that_a_run_ended_if_a_person_asked_for_it(
    live: Live, context: BrowserContext, page: Page
) -> None:
    context.add_init_script(NOTIFICATIONS)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.train(40)
    page.goto(f"/runs/{run.key}")
    button = page.get_by_role("button", name="Notify me when a run ends")
    shown = "JSON.parse(localStorage.getItem('shown') ?? '[]')"
    assert page.evaluate(shown) == []
    button.click()
    expect(button).to_have_accessible_description(re.compile("tells you when a run ends"))
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#toasts")).to_contain_text("On: while a page of Brushwork is open")
    assert page.evaluate(shown) == ["Brushwork tells you here when a run ends."]
    other = context.new_page()
    other.goto("/adapters")
    training.finish()
    for tab in (other, page):
        tab.evaluate("document.getElementById('running').dispatchEvent(new Event('poll'))")
        expect(tab.locator("#running")).to_have_attribute("data-ended", re.compile("Chalk"))
        tab.evaluate("navigator.locks.request('notified-runs', () => true)")  # it has its turn
    assert page.evaluate(shown)[1:] == ["“Chalk” has finished"]
    with context.expect_page() as opened:
        other.evaluate("shown.at(-1).dispatchEvent(new Event('click'))")
    expect(opened.value).to_have_url(re.compile(f"/runs/{run.key}$"))
    expect(button).to_have_count(0)  # this run has ended
    fake_workers.queued_run(live.state, fake_workers.dataset(live.state, "Ink"))
    page.goto(f"/runs/{run.key + 1}")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#toasts")).to_contain_text("Off: no notification comes")
    # what stands in the way is said
    for obstacle, sentence in (
        ("Notification.permission = 'denied'", "This browser blocks notifications"),
        ("delete window.Notification", "has no notifications"),
        ("Object.defineProperty(window, 'isSecureContext', { value: false })", "HTTPS"),
    ):
        blocked = context.new_page()
        blocked.add_init_script(obstacle)
        blocked.goto(f"/runs/{run.key + 1}")
        bell = blocked.locator("#notify")
        expect(bell).to_have_attribute("aria-disabled", "true")
        expect(bell).to_have_accessible_description(re.compile(sentence))


def test_watching_goes_on_after_the_server_was_away(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    page.goto(f"/runs/{run.key}")
    page.route("**/live?*", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        training.train(10)
    page.unroute("**/live?*")
    expect(page.locator("#run-progress")).to_contain_text("Step 10 of 40")


def test_canceling_asks_first_because_nothing_is_kept(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    fake_workers.FakeTraining(live.state).train(10)
    page.goto(f"/runs/{run.key}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("Canceling makes no adapter")).to_be_visible()
    page.get_by_role("button", name="Cancel this run").click()
    expect(page.locator("#run-head")).to_contain_text("Canceling…")
    with live.database.read() as session:
        assert service.get_run(session, run.key).cancel_requested


def test_canceling_a_run_that_waits_leaves_no_promise_on_its_page(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    page.goto(f"/runs/{run.key}")
    expect(page.locator("#run-samples")).to_contain_text("First come")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#run-samples")).to_contain_text("No samples were made.")
    expect(page.locator("#run-log")).to_contain_text("Canceled")
    expect(page.locator("#running")).to_be_empty()


def test_a_small_bar_keeps_its_buttons_and_its_state_while_one_trains_and_one_waits(
    live: Live, page: Page
) -> None:
    dataset = fake_workers.dataset(live.state)
    fake_workers.queued_run(live.state, dataset)
    fake_workers.queued_run(live.state, dataset)
    fake_workers.FakeTraining(live.state).train(10)
    for width in (360, 768):
        page.set_viewport_size({"width": width, "height": 740})
        page.goto("/runs")
        state = page.locator(".running")
        expect(state).to_contain_text("1 training · 25 %")
        assert state.evaluate("state => state.scrollWidth <= state.clientWidth"), width
        for name in ("Theme", "Keyboard shortcuts"):
            expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)


def test_samples_are_walked_with_the_arrow_keys_while_new_rows_come_in(
    live: Live, page: Page
) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.train(20)
    training.sample(0)
    training.sample(20)
    page.goto(f"/runs/{run.key}")
    page.locator("#sample-20-0").click()
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text("Step 20 · epoch 53.3 · seed 0")
    page.keyboard.press("ArrowRight")
    expect(viewer.get_by_role("heading")).to_have_text("a rocket")
    page.keyboard.press("c")
    expect(viewer).to_contain_text("Base model without the adapter · seed 1")
    page.keyboard.press("c")
    training.train(10)
    training.sample(30)
    expect(page.locator("#sample-30-1")).to_be_attached()
    page.keyboard.press("ArrowUp")
    expect(viewer).to_contain_text("Step 30 · epoch 80 · seed 1")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(viewer).to_contain_text("Base model without the adapter")
    page.keyboard.press("Escape")
    expect(page.locator("#sample-0-1")).to_be_focused()


def test_a_mark_of_the_chart_opens_its_samples_and_keeps_the_focus(live: Live, page: Page) -> None:
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state), batch_size=3)
    training = fake_workers.FakeTraining(live.state)
    training.sample(0)
    for step in (10, 20):
        training.train(10)
        training.sample(step)
    training.checkpoint()
    training.train(5)
    page.goto(f"/runs/{run.key}")
    first = page.get_by_role("link", name="Step 10, samples", exact=True)
    saved = page.get_by_role("link", name="Step 20, samples and checkpoint")
    first.click()
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text("Step 10 · epoch 10 · seed 0")
    page.keyboard.press("Escape")
    expect(first).to_be_focused()
    first.press("ArrowRight")  # not lost while a poll exchanges the chart
    expect(saved).to_be_focused()
    training.train(5)
    training.sample(30)
    expect(page.locator("#mark-30")).to_be_attached()
    expect(saved).to_be_focused()
    saved.press("Enter")
    expect(viewer).to_contain_text("Step 20 · epoch 20 · seed 0")
    expect(page.locator(".chart")).to_have_accessible_description(
        re.compile(r"Learning rate 0\.002 at step 30; highest 0\.002 at step 8\.")
    )
    expect(page.locator(".chart-rate .u-legend")).to_have_text(
        re.compile("Learning rate:?\\s*0.002")
    )


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_of_a_run_is_wider_than_a_small_screen(live: Live, page: Page, width: int) -> None:
    prompts = [f"a very long prompt number {number} of a castle" for number in range(8)]
    run = fake_workers.queued_run(
        live.state, fake_workers.dataset(live.state), sample_prompts=prompts
    )
    training = fake_workers.FakeTraining(live.state)
    training.train(20)
    training.sample(20, prompts)
    page.set_viewport_size({"width": width, "height": 740})
    for address in (f"/runs/{run.key}", "/runs", "/train/new"):
        page.goto(address)
        too_wide = page.evaluate(
            "[...document.querySelectorAll('main, main .panel')]"
            ".filter((box) => box.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert too_wide == 0, address


def test_chosen_runs_stay_chosen_while_the_list_changes(live: Live, page: Page) -> None:
    fake_workers.ready_base(live.state)
    of = fake_workers.dataset(live.state)
    for _ in range(2):
        fake_workers.queued_run(live.state, of)
        fake_workers.FakeTraining(live.state).cancel()
    waiting = fake_workers.queued_run(live.state, of)
    page.goto("/runs")
    buttons = page.locator(".chosen-bar").get_by_role("button")
    compare, delete = (buttons.filter(has_text=name) for name in ("Compare", "Delete"))
    expect(compare).to_be_disabled()
    expect(delete).to_be_disabled()
    page.locator("#choose-1").check()
    expect(delete).to_be_enabled()
    page.locator("#choose-2").check()
    expect(page.locator("[data-chosen-count]")).to_have_text("2 chosen")
    expect(compare).to_be_enabled()
    fake_workers.FakeTraining(live.state).train(10)
    row = page.get_by_role("row").filter(has=page.locator(f"#run-{waiting.key}"))
    expect(row).to_contain_text("10 of 40 steps")  # the rows were replaced
    expect(page.locator("#choose-1")).to_be_checked()
    expect(page.locator("#choose-2")).to_be_focused()
    page.get_by_label("Search runs").fill("2")
    expect(page.get_by_role("status").first).to_have_text("1 run found.")
    expect(page).to_have_url(re.compile(r"[?&]q=2"))
    expect(page.locator("[data-chosen-count]")).to_have_text("1 chosen")
    delete.click()
    expect(page).to_have_url(re.compile(r"/runs\?q=2$"))
    expect(page.get_by_text("No run matches")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()

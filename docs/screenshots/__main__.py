"""Makes every screenshot of the README and the docs: `make screenshots`.

Starts `brushwork serve` on a free port with an empty data folder, adds the bundled example, trains
on it with a fixed seed (the preset of `--preset`), generates a few images with the adapter, and
photographs the pages in headless chromium, in light and dark. A longer training is photographed
while it runs, then canceled. Every image in the screenshots was made during that run: prompts were
chosen beforehand, results were not.

    python -m docs.screenshots --keep FOLDER    # keeps the data folder
    python -m docs.screenshots --reuse FOLDER   # photographs it again, without training
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.cli.demo import Api, Stopwatch, running_stack
from docs.screenshots import scenes, workflow
from docs.screenshots.camera import Camera, open_browser
from docs.screenshots.overview import collect, overview_page
from docs.screenshots.workflow import FinishedRun
from worker.core.training.presets import Preset

IMAGES = Path(__file__).parents[1] / "images"
SHARE_TRAINED = 0.55  # of a run that is photographed while it trains
PLAYGROUND_SUBJECT = "rocket"


def main(argv: Sequence[str] | None = None) -> None:
    """Make the screenshots."""
    options = parse(argv)
    with (
        data_folder(options.reuse or options.keep) as folder,
        tempfile.TemporaryDirectory() as taken,
        running_stack(folder, Stopwatch()) as url,
        Api(url) as api,
        open_browser() as browser,
    ):
        camera = Camera(browser, url, Path(taken))
        if options.reuse:
            run = workflow.newest_run(api)
        else:
            run = photograph_training(camera, api, Preset(options.preset))
        photograph_results(camera, api, run)
        # all at the end: pages show the version of the code, which says whether files were changed
        options.out.mkdir(parents=True, exist_ok=True)
        for image in Path(taken).iterdir():
            shutil.copy(image, options.out)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options on the command line."""
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the images")
    parser.add_argument(
        "--preset", choices=[*Preset], default=Preset.QUICK, help="preset of the finished run"
    )
    folder = parser.add_mutually_exclusive_group()
    folder.add_argument("--keep", type=Path, help="data folder to create and keep")
    folder.add_argument("--reuse", type=Path, help="data folder that --keep created")
    return parser.parse_args(argv)


@contextmanager
def data_folder(chosen: Path | None) -> Iterator[Path]:
    """The chosen folder, created if needed; else one that is deleted afterwards."""
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="brushwork-screenshots-") as folder:
            yield Path(folder)
    else:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.absolute()


def photograph_training(camera: Camera, api: Api, preset: Preset) -> FinishedRun:
    """From the empty first page to a finished run, which is returned, and one that trains."""
    scenes.welcome(camera)
    scenes.add_example(camera)
    (dataset,) = api.get("/api/v1/datasets").json()
    scenes.dataset(camera, dataset["slug"])
    workflow.wait_for_base(api)
    run = workflow.wait_for_run(
        api, workflow.start_run(api, dataset["id"], dataset["name"], preset)
    )
    workflow.describe_adapter(camera.url, run.adapter_id)
    longer = workflow.start_run(api, dataset["id"], f"{dataset['name']}, longer", Preset.BALANCED)
    workflow.wait_for_share(api, longer, SHARE_TRAINED)
    scenes.training(camera, longer)
    scenes.home(camera)
    api.make(f"/api/v1/runs/{longer}/cancel", {})
    return run


def photograph_results(camera: Camera, api: Api, run: FinishedRun) -> None:
    """The finished run, its adapter, the playground, and the overview."""
    pairs = workflow.render_pairs(api, run.adapter_id)
    scenes.finished_run(camera, run.run_id)
    scenes.phone(camera, run.run_id)
    scenes.adapter(camera, run.adapter_slug)
    prompt = workflow.prompt_of(PLAYGROUND_SUBJECT)
    scenes.playground(camera, run.adapter_slug, prompt, workflow.SEED)
    with overview_page(camera, collect(api, run, pairs)) as overview:
        camera.photograph(overview, "overview")


if __name__ == "__main__":
    main()

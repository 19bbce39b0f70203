"""A caption model in its own process: it leaves the GPU to trainings, stops and crashes alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.worker.captioning.tiny_models import save_wd_tagger
from tests.worker.runtime.job_loops import running, wait_for
from worker.core.captioning.interface import ImageNotCaptioned, ProviderGone
from worker.runtime.job_progress import JobCanceled
from worker.runtime.local_captions.captioner import LocalCaptioner, LocalModel

STAND_IN = (sys.executable, "-m", "tests.worker.runtime.local_captions.caption_stand_in")
IMAGE = Image.new("RGBA", (9, 9), (255, 0, 0, 255))


def model_processes() -> list[psutil.Process]:
    """The processes with a model that this test has started."""
    return running(".caption_stand_in", ".captioning.local", recursive=True)


@contextmanager
def opened(
    folder: Path,
    *,
    device: str = "cuda",
    needs_gpu: Callable[[], bool] = lambda: False,
    check: Callable[[], None] = lambda: None,
    command: tuple[str, ...] | None = STAND_IN,
) -> Iterator[LocalCaptioner]:
    model = LocalModel(folder, "Tiny", device, threads=1)
    captioner = LocalCaptioner(model, folder, check=check, needs_gpu=needs_gpu, command=command)
    try:
        captioner.open()
        yield captioner
    finally:
        captioner.close()
        assert model_processes() == []


def test_a_real_model_captions_in_its_process(tmp_path: Path) -> None:
    folder = save_wd_tagger(tmp_path)
    with opened(folder, device="cpu", command=None) as captioner:
        assert captioner.caption(IMAGE, "").text == "red theme, ^_^"
        assert captioner.caption(Image.new("I;16", (9, 9)), "").text == "^_^"
        (process,) = model_processes()
        assert "worker.core.captioning.local" in process.cmdline()


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProviderGone, match=r"has no config\.json"), opened(tmp_path, command=None):
        pass


def test_while_a_training_runs_or_waits_captions_are_made_on_the_cpu(tmp_path: Path) -> None:
    training = True
    with opened(tmp_path, needs_gpu=lambda: training) as captioner:
        assert captioner.caption(IMAGE, "").text == "on cpu"
        (first,) = model_processes()
        assert captioner.caption(IMAGE, "").text == "on cpu"
        assert model_processes() == [first]
        training = False
        assert captioner.caption(IMAGE, "").text == "on cuda"
        training = True
        assert captioner.caption(IMAGE, "").text == "on cpu"


def test_a_training_that_begins_in_the_middle_of_a_caption_gets_the_gpu(tmp_path: Path) -> None:
    """The image that was at work is captioned on the CPU; the process on the GPU has ended."""
    on_gpu: list[psutil.Process] = []

    def needs_gpu() -> bool:
        return bool(on_gpu)

    def begin() -> None:
        on_gpu.extend(model_processes())

    with opened(tmp_path, needs_gpu=needs_gpu, check=begin) as captioner:
        assert captioner.caption(IMAGE, "wait").text == "on cpu"
        assert not on_gpu[0].is_running()


def test_without_a_gpu_nothing_moves_for_a_training(tmp_path: Path) -> None:
    asked: list[bool] = []
    with opened(tmp_path, device="cpu", needs_gpu=lambda: bool(asked.append(True))) as captioner:
        assert captioner.caption(IMAGE, "").text == "on cpu"
    assert asked == []


def test_a_cancel_ends_a_process_in_the_middle_of_a_caption(tmp_path: Path) -> None:
    is_canceled = False

    def check() -> None:
        if is_canceled:
            raise JobCanceled

    with opened(tmp_path, check=check) as captioner:
        is_canceled = True
        with pytest.raises(JobCanceled):
            captioner.caption(IMAGE, "wait")


def test_a_model_that_fails_goes_on_and_one_that_crashes_does_not(tmp_path: Path) -> None:
    with opened(tmp_path) as captioner:
        with pytest.raises(ImageNotCaptioned, match="nothing to say"):
            captioner.caption(IMAGE, "fail")
        assert captioner.caption(IMAGE, "").text == "on cuda"
        with pytest.raises(ProviderGone, match="“Tiny” ended with exit code 9"):
            captioner.caption(IMAGE, "crash")


def test_a_model_whose_parent_was_killed_ends(tmp_path: Path) -> None:
    folder = save_wd_tagger(tmp_path)
    with opened(folder, device="cpu", command=None) as captioner:
        (process,) = model_processes()
        stdin = captioner._process._process.stdin
        assert stdin is not None
        stdin.close()  # as the kernel does when the parent is killed
        wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)

"""Base models are downloaded from the Hub with its own client: what is needed, whole, resumable."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from tests.fake_hub import READ, Hub
from worker.core.hub import transfer
from worker.core.hub.errors import Access, HubError, explain_error
from worker.core.hub.models import HubReference, download_model, find_local_model

REPO = "acme/tiny-diffusion"
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
LARGE = 3_000_000
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "text_encoder_2": [None, None],
}


def folder(**more: bytes) -> dict[str, bytes]:
    """The files of a repository in diffusers layout, as published ones look."""
    files = {
        "model_index.json": json.dumps(INDEX).encode(),
        "README.md": b"---\nlicense: mit\n---\n# Tiny\n",
        "v1-5-pruned.safetensors": b"single" * 100,
        "v1-5-pruned.ckpt": b"pickle" * 100,
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"#version",
        "safety_checker/model.safetensors": b"safety" * 100,
        "text_encoder_2/model.safetensors": b"unnamed" * 100,
        "text_encoder/config.json": b"{}",
        "text_encoder/model.safetensors": b"t" * 2_000,
        "text_encoder/model.fp16.safetensors": b"t" * 1_000,
        "text_encoder/pytorch_model.bin": b"pickle" * 100,
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": b"u" * 2_000,
        "unet/diffusion_pytorch_model.non_ema.safetensors": b"n" * 2_000,
        UNET: os.urandom(LARGE),
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": b"v" * 2_000,
    }
    return files | more


def fetched(home: Path, commit: str) -> set[str]:
    root = home / commit
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_only_what_is_needed_is_fetched_in_half_precision_where_it_exists(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    repo = hub.add(REPO, folder())
    told: list[tuple[str, int, int]] = []
    found = download_model(
        HubReference(REPO), tmp_path, access, on_progress=lambda *row: told.append(row)
    )
    assert (found.path, found.commit) == (tmp_path / repo.commit, repo.commit)
    assert fetched(tmp_path, repo.commit) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "unet/config.json",
        UNET,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",  # the only one there is
    }
    assert (found.path / UNET).read_bytes() == repo.files[UNET]
    whole = sum(path.stat().st_size for path in found.path.rglob("*") if path.is_file())
    assert told[0] == ("", 0, whole)
    assert told[-1] == (UNET, whole, whole)
    assert [row[1] for row in told] == sorted(row[1] for row in told)


def test_full_precision_is_fetched_when_it_is_asked_for(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    repo = hub.add(REPO, folder())
    download_model(HubReference(REPO), tmp_path, access, precision="fp32")
    weights = {name for name in fetched(tmp_path, repo.commit) if name.endswith(".safetensors")}
    assert weights == {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


def test_shards_come_with_their_index(hub: Hub, access: Access, tmp_path: Path) -> None:
    files = folder()
    del files[UNET], files["unet/diffusion_pytorch_model.safetensors"]
    shards = [
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
    ]
    repo = hub.add(REPO, files | {name: name.encode() for name in shards})
    download_model(HubReference(REPO), tmp_path, access)
    assert set(shards) <= fetched(tmp_path, repo.commit)


def test_a_broken_download_resumes_where_it_broke(
    hub: Hub, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    repo = hub.add(REPO, folder())
    hub.cuts[UNET] = 1_000_000
    found = download_model(HubReference(REPO), tmp_path, access)
    assert (found.path / UNET).read_bytes() == repo.files[UNET]
    first, second = hub.gets(UNET)
    assert first.range is None
    assert second.range is not None
    assert 800_000 <= int(second.range.removeprefix("bytes=")[:-1]) <= 1_100_000


def test_another_process_resumes_the_partial_file(
    hub: Hub, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    repo = hub.add(REPO, folder())

    class Killed(BaseException):
        pass

    def die(path: str, done: int, _total: int) -> None:
        if path == UNET and done > 1_000_000:
            raise Killed

    with pytest.raises(Killed):
        download_model(HubReference(REPO), tmp_path, access, on_progress=die)
    part = tmp_path / repo.commit / f"{UNET}.part"
    here = part.stat().st_size
    assert 900_000 < here < LARGE
    assert find_local_model(HubReference(REPO), tmp_path) is None  # a half download is none
    hub.asked.clear()
    found = download_model(HubReference(REPO), tmp_path, access)
    assert (found.path / UNET).read_bytes() == repo.files[UNET]
    assert [row.range for row in hub.gets(UNET)] == [f"bytes={here}-"]
    assert hub.gets("vae/diffusion_pytorch_model.safetensors") == []  # was whole already
    assert not part.exists()


def test_concurrent_downloads_of_one_repository_download_it_once(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    repo = hub.add(REPO, folder())
    hub.hold_after[UNET] = 1_000_000
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(download_model, HubReference(REPO), tmp_path, access) for _ in range(2)]
        infos = (row for row in hub.asked if row.path == f"/api/models/{REPO}")
        while sum(1 for _ in infos) < 2 and not all(one.done() for one in both):
            time.sleep(0.01)
            infos = (row for row in list(hub.asked) if row.path == f"/api/models/{REPO}")
        hub.go.set()
        first, second = (one.result() for one in both)
    assert first == second
    assert (first.path / UNET).read_bytes() == repo.files[UNET]
    assert len(hub.gets(UNET)) == 1


def test_what_is_here_is_not_asked_for_again_and_is_found_without_a_network(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    repo = hub.add(REPO, folder())
    first = download_model(HubReference(REPO), tmp_path, access)
    hub.asked.clear()
    assert download_model(HubReference(REPO), tmp_path, access) == first
    assert [row for row in hub.asked if "/resolve/" in row.path] == []
    hub.asked.clear()
    assert find_local_model(HubReference(REPO), tmp_path) == first
    assert find_local_model(HubReference(REPO, repo.commit), tmp_path) == first
    assert find_local_model(HubReference(REPO, "other"), tmp_path) is None
    assert find_local_model(HubReference(REPO, None, "x.safetensors"), tmp_path) is None
    assert hub.asked == []


def test_a_commit_that_was_asked_for_stays_itself(hub: Hub, access: Access, tmp_path: Path) -> None:
    repo = hub.add(REPO, folder())
    old = download_model(HubReference(REPO), tmp_path, access)
    repo.files["unet/config.json"] = b'{"new": 1}'
    new = download_model(HubReference(REPO), tmp_path, access)
    assert new.commit != old.commit
    assert (old.path / "unet/config.json").read_bytes() == b"{}"
    assert find_local_model(HubReference(REPO), tmp_path) == new
    assert find_local_model(HubReference(REPO, old.commit), tmp_path) == old


def test_a_single_file_is_chosen_by_name_or_when_it_is_the_only_one(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    repo = hub.add("acme/mix", {"mix.safetensors": b"m" * 500, "mix.ckpt": b"p"})
    found = download_model(HubReference("acme/mix"), tmp_path / "one", access)
    assert found.path == tmp_path / "one" / repo.commit / "mix.safetensors"
    assert find_local_model(HubReference("acme/mix"), tmp_path / "one") == found
    repo.files["mix-v2.safetensors"] = b"n" * 500
    with pytest.raises(HubError, match=r"several files: mix-v2.safetensors, mix.safetensors\."):
        download_model(HubReference("acme/mix"), tmp_path / "two", access)
    wanted = HubReference("acme/mix", None, "mix-v2.safetensors")
    assert download_model(wanted, tmp_path / "two", access).path.name == "mix-v2.safetensors"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.ckpt": b"x"}, "only PyTorch pickles"),
        ({"z_image-Q4_K.gguf": b"x"}, "only GGUF files, .* with .safetensors files"),
        ({"README.md": b"x"}, "does not contain a base model"),
        ({"pytorch_lora_weights.safetensors": b"x"}, "is an adapter, not a base model"),
        ({"model_index.json": b"[]"}, "is not valid JSON"),
        (
            {
                "model_index.json": json.dumps(INDEX).encode(),
                "unet/diffusion_pytorch_model.bin": b"x",
            },
            "is only a PyTorch pickle",
        ),
        ({"model_index.json": json.dumps(INDEX).encode()}, "no .safetensors weights"),
    ],
)
def test_a_repository_that_cannot_be_used_says_why(
    hub: Hub, access: Access, tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    hub.add("acme/odd", files)
    with pytest.raises(HubError, match=reason):
        download_model(HubReference("acme/odd"), tmp_path, access)


def test_names_that_lead_out_of_the_folder_are_left_alone(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    hub.add(
        "acme/bad", {"../up.safetensors": b"x", "a\\b.safetensors": b"x", "c.safetensors": b"x"}
    )
    assert download_model(HubReference("acme/bad"), tmp_path, access).path.name == "c.safetensors"


def refusal(hub: Hub, ask: Callable[[], Any], access: Access) -> HubError:
    with pytest.raises(Exception) as caught:
        ask()
    found = explain_error(caught.value, REPO, access)
    assert found is not None
    return found


def test_refusals_of_the_hub_are_explained(hub: Hub, tmp_path: Path) -> None:
    hub.add(REPO, folder(), gated=True)
    hub.add("acme/secret", folder(), private=True)
    hub.tokens["good"] = READ

    def ask(repo: str, token: str | None = None, revision: str | None = None) -> HubError:
        access = Access(hub.url, token)
        return refusal(
            hub,
            lambda: download_model(HubReference(repo, revision), tmp_path / repo, access),
            access,
        )

    gated = ask(REPO)
    assert gated.code == "hub_gated"
    assert "is gated" in str(gated)
    assert "BRUSHWORK_HUB_TOKEN" in str(gated)
    assert ask("acme/secret").code == "hub_not_found"
    assert "If it is private" in str(ask("acme/nothing"))
    assert "private" not in str(ask("acme/nothing", "good"))
    assert "does not accept the token" in str(ask(REPO, "wrong"))
    assert "no such branch, tag or commit" in str(ask(REPO, "good", "nowhere"))
    assert download_model(HubReference(REPO), tmp_path, Access(hub.url, "good")).commit
    assert {row.token for row in hub.asked if row.path.startswith("/cdn/")} == {None}


def test_an_unreachable_hub_is_explained(
    hub: Hub, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Access("http://127.0.0.1:9")
    assert "cannot be reached" in str(
        refusal(hub, lambda: download_model(HubReference(REPO), tmp_path, away), away)
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in str(
        refusal(hub, lambda: download_model(HubReference(REPO), tmp_path, access), access)
    )


def test_server_errors_are_retried(
    hub: Hub, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RETRY_DELAYS", (0.01, 0.01))
    repo = hub.add("acme/mix", {"mix.safetensors": b"m" * 500})
    hub.trouble = 2
    assert (
        download_model(HubReference("acme/mix"), tmp_path, access).path.read_bytes() == b"m" * 500
    )
    repo.files["mix.safetensors"] = b"n" * 500
    hub.trouble = 3
    said = refusal(hub, lambda: download_model(HubReference("acme/mix"), tmp_path, access), access)
    assert "server error (503)" in str(said)


def test_a_damaged_file_is_never_kept(hub: Hub, access: Access, tmp_path: Path) -> None:
    hub.add("acme/mix", {"mix.safetensors": b"m" * 500})
    hub.damage.add("mix.safetensors")
    with pytest.raises(HubError, match="arrived damaged"):
        download_model(HubReference("acme/mix"), tmp_path, access)
    assert [path for path in tmp_path.rglob("mix*") if path.is_file()] == []
    hub.damage.clear()
    assert (
        download_model(HubReference("acme/mix"), tmp_path, access).path.read_bytes() == b"m" * 500
    )


def test_a_full_disk_is_explained(
    hub: Hub, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, folder())

    def ask() -> Any:
        return download_model(HubReference(REPO), tmp_path, access)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=transfer.SPARE_BYTES))
        with pytest.raises(HubError, match=r"needs .* B, and the disk .* has 268 MB free"):
            ask()

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transfer._PartFile, "write", full)
        assert refusal(hub, ask, access).code == "disk_full"
    assert ask().commit


def test_what_another_program_downloaded_is_taken_from_the_hubs_own_cache(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    repo = hub.add(REPO, folder())
    cached = Path(snapshot_download(REPO, endpoint=hub.url, ignore_patterns=["*.ckpt", "*.bin"]))
    found = find_local_model(HubReference(REPO), tmp_path)
    assert found is not None
    assert (found.path, found.commit) == (cached, repo.commit)
    hub.asked.clear()
    here = download_model(HubReference(REPO), tmp_path, access)
    assert (here.path / UNET).read_bytes() == repo.files[UNET]
    assert hub.gets(".safetensors") == []


def test_a_damaged_file_in_the_hubs_own_cache_is_fetched_instead(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    repo = hub.add(REPO, folder())
    cached = Path(snapshot_download(REPO, endpoint=hub.url, ignore_patterns=["*.ckpt", "*.bin"]))
    damaged = bytes(255 - byte for byte in repo.files[UNET])
    (cached / UNET).resolve().write_bytes(damaged)
    hub.asked.clear()
    here = download_model(HubReference(REPO), tmp_path, access)
    assert (here.path / UNET).read_bytes() == repo.files[UNET]
    assert [row.path for row in hub.gets(".safetensors")] == [f"/cdn/{REPO}/{UNET}"]
    assert (cached / UNET).read_bytes() == damaged  # another program's file is not written to


def test_another_model_is_refused_by_name_before_its_weights_are_fetched(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    index = {
        "_class_name": "FluxPipeline",
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    repo = hub.add(REPO, {"model_index.json": json.dumps(index).encode(), "vae/config.json": b"{}"})
    with pytest.raises(HubError, match=r"^This is FLUX\.1, which cannot be trained here"):
        download_model(HubReference(REPO), tmp_path, access)
    assert not (tmp_path / repo.commit).exists()


def test_a_z_image_comes_with_all_its_parts_and_nothing_twice(
    hub: Hub, access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = {
        "_class_name": "ZImagePipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    needed = {
        "model_index.json": json.dumps(index).encode(),
        "scheduler/scheduler_config.json": b"{}",
        "text_encoder/config.json": b"{}",
        "text_encoder/generation_config.json": b"{}",
        "text_encoder/model-00001-of-00002.safetensors": b"1" * 900,
        "text_encoder/model-00002-of-00002.safetensors": b"2" * 900,
        "text_encoder/model.safetensors.index.json": b"{}",
        "tokenizer/chat_template.jinja": b"{{ messages }}",
        "tokenizer/merges.txt": b"#version",
        "tokenizer/tokenizer.json": b"{}",
        "tokenizer/tokenizer_config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "transformer/config.json": b"{}",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": b"3" * 900,
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": b"4" * 900,
        "transformer/diffusion_pytorch_model.safetensors.index.json": b"{}",
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": b"5" * 900,
    }
    extra = {
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "assets/showcase.jpg": b"image" * 100,
        "split_files/z_image_bf16.safetensors": b"6" * 4_000,
        "transformer/diffusion_pytorch_model.bin": b"pickle" * 100,
    }
    repo = hub.add("Tongyi-MAI/Z-Image", needed | extra)
    told: list[int] = []
    download_model(
        HubReference("Tongyi-MAI/Z-Image"),
        tmp_path,
        access,
        on_progress=lambda _path, _done, total: told.append(total),
    )
    assert fetched(tmp_path, repo.commit) == set(needed)
    assert told[0] == sum(map(len, needed.values()))

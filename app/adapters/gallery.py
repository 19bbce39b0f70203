"""What the page of an adapter shows: pictures, facts, files, and how to use it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.adapters import service
from app.adapters.models import Adapter, AdapterFile, AdapterVersion
from app.adapters.service import AdapterSummary, DownloadDtype, DownloadFormat
from app.base_models.models import BaseModel
from app.datasets.models import Dataset
from app.playground import service as playground
from app.runs.models import Run

FORMAT_WORDS = {
    DownloadFormat.KOHYA: ("kohya", "ComfyUI, A1111, Forge, InvokeAI"),
    DownloadFormat.PEFT: ("diffusers / PEFT", "diffusers, peft"),
    DownloadFormat.BUNDLE: ("Bundle", "all files with a card and the cover, as .zip"),
}
USUAL_WEIGHT = "0.8"


@dataclass(frozen=True)
class Picture:
    """A picture drawn with the adapter."""

    sha256: str
    title: str
    href: str
    is_cover: bool


@dataclass(frozen=True)
class Download:
    """A file that can be had, with its size once it was written."""

    format: str
    title: str
    used_by: str
    dtype: str
    href: str
    size_bytes: int | None


@dataclass(frozen=True)
class Snippet:
    """A piece of text that makes another program use the adapter."""

    title: str
    text: str


@dataclass(frozen=True)
class AdapterView:
    """An adapter with one of its versions."""

    adapter: Adapter
    summary: AdapterSummary
    version: AdapterVersion
    versions: list[AdapterVersion]
    run: Run | None
    base: BaseModel | None
    dataset: Dataset | None
    image_count: int | None
    pictures: list[Picture]
    downloads: list[Download]
    snippets: list[Snippet]

    @property
    def main_download(self) -> Download:
        """The file most programs read."""
        return self.downloads[0]


def adapter_view(session: Session, slug: str, number: int | None = None) -> AdapterView:
    """The page of an adapter; NotFound when there is no such adapter or version."""
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, number)
    pinned = service.version_dataset(session, version)
    pictures = _pictures(session, adapter, version)
    return AdapterView(
        adapter=adapter,
        summary=service.summary(session, adapter),
        version=version,
        versions=service.list_versions(session, adapter.key),
        run=service.version_run(session, version),
        base=service.version_base(session, version),
        dataset=pinned[0] if pinned else None,
        image_count=pinned[1].image_count if pinned else None,
        pictures=pictures,
        downloads=_downloads(session, adapter, version),
        snippets=_snippets(adapter, version, pictures),
    )


def _pictures(session: Session, adapter: Adapter, version: AdapterVersion) -> list[Picture]:
    """The samples of the last step, then what was drawn in the playground, each once."""
    found = [
        (sample.sha256, sample.prompt, f"/media/{sample.sha256}")
        for sample in service.version_samples(session, version)
    ]
    renders = playground.adapter_renders(session, adapter.key)
    images = playground.first_images(session, renders)
    found += [
        (images[render.key].sha256, render.prompt, f"/renders/{render.key}")
        for render in renders
        if render.key in images
    ]
    cover = service.summary(session, adapter).covers[:1]
    unique = {sha256: (sha256, title, href) for sha256, title, href in reversed(found)}
    return [
        Picture(sha256, title, href, is_cover=[sha256] == cover)
        for sha256, title, href in reversed(unique.values())
    ]


def _downloads(session: Session, adapter: Adapter, version: AdapterVersion) -> list[Download]:
    downloads = []
    for file_format, (title, used_by) in FORMAT_WORDS.items():
        for dtype in DownloadDtype:
            file: AdapterFile | None = service.find_file(session, version.key, file_format, dtype)
            downloads.append(
                Download(
                    format=file_format,
                    title=title,
                    used_by=used_by,
                    dtype=dtype,
                    href=f"/api/v1/adapters/{adapter.key}/download"
                    f"?format={file_format}&dtype={dtype}&version={version.version}",
                    size_bytes=file.size_bytes if file else None,
                )
            )
    return downloads


def _snippets(adapter: Adapter, version: AdapterVersion, pictures: list[Picture]) -> list[Snippet]:
    filename = service.file_name(adapter, version, DownloadFormat.KOHYA, DownloadDtype.FP16)
    stem = filename.removesuffix(".safetensors")
    words = ", ".join(adapter.trigger_words)
    prompt = pictures[0].title if pictures else words or "a castle"
    tag = f"<lora:{stem}:{USUAL_WEIGHT}>" + (f" {words}" if words else "")
    return [
        Snippet(
            "diffusers",
            f'pipe.load_lora_weights("{filename}", adapter_name="{adapter.slug}")\n'
            f'pipe.set_adapters("{adapter.slug}", {USUAL_WEIGHT})\n'
            f"image = pipe({prompt!r}).images[0]",
        ),
        Snippet("A1111, Forge, SD.Next", tag),
        Snippet(
            "ComfyUI, Load LoRA",
            f"{filename}\nstrength_model {USUAL_WEIGHT}, strength_clip {USUAL_WEIGHT}",
        ),
    ]

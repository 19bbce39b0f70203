"""Contents of the adapter page: images, facts, files and snippets for other programs."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.adapters import service
from app.registry.adapters.downloads.failed_exports import refusals
from app.registry.adapters.downloads.proofs import FileProof, file_proofs
from app.registry.adapters.images import AdapterImage, AdapterImages, list_adapter_images
from app.registry.adapters.models import LATEST, Adapter, AdapterVersion
from app.registry.adapters.service import AdapterSummary
from app.registry.adapters.versions import aliases
from app.registry.base_models.models import BaseModel
from app.registry.datasets.models import Dataset, DatasetVersion
from app.registry.db import Session
from app.registry.runs.models import Run
from worker.core.lora_files.file_names import file_name, file_stem
from worker.core.words import FileFormat, WeightDtype

PROGRAMS = {
    FileFormat.KOHYA: "ComfyUI, A1111, Forge, InvokeAI",
    FileFormat.PEFT: "diffusers, peft",
    FileFormat.BUNDLE: "all files with a model card and the cover, as .zip",
}
USUAL_WEIGHT = "0.8"
VERSIONS = 8
ALL_VERSIONS = 200


@dataclass(frozen=True)
class Download:
    """A file to download; its size once it exists; `refusal`: why it is not available."""

    format: str
    title: str
    used_by: str
    dtype: str
    href: str
    size_bytes: int | None
    refusal: str | None = None


@dataclass(frozen=True)
class Snippet:
    """Text that makes another program use the adapter."""

    title: str
    text: str


@dataclass(frozen=True)
class VersionLine:
    """A version in the list of versions."""

    version: AdapterVersion
    aliases: list[str]


@dataclass(frozen=True)
class AdapterView:
    """An adapter with one of its versions; `here`: ids of its source adapters that still exist."""

    adapter: Adapter
    summary: AdapterSummary
    version: AdapterVersion
    versions: list[VersionLine]
    aliases: dict[str, int]
    run: Run | None
    base: BaseModel | None
    base_fingerprint: str | None
    dataset: Dataset | None
    pinned: DatasetVersion | None
    gallery: AdapterImages
    downloads: list[Download]
    snippets: list[Snippet]
    proofs: list[FileProof]
    here: set[int]

    @property
    def main_download(self) -> Download:
        """The file most programs read."""
        return self.downloads[0]

    @property
    def offered(self) -> Download | None:
        """The file most programs read, in the first available number type."""
        kohya = [file for file in self.downloads if file.format == self.main_download.format]
        return next((file for file in kohya if not file.refusal), None)

    @property
    def refused(self) -> list[Download]:
        """The files that are not available."""
        return [file for file in self.downloads if file.refusal]

    @property
    def images(self) -> list[AdapterImage]:
        """The images of the first page."""
        return self.gallery.shown

    @property
    def version_count(self) -> int:
        """Number of versions, including those not shown."""
        return self.summary.version_count

    @property
    def names(self) -> list[str]:
        """The aliases of the shown version."""
        return list(aliases.by_number(self.aliases, self.version.version))

    @property
    def is_used(self) -> bool:
        """True for the version that is used when none is given."""
        return self.aliases.get(LATEST) == self.version.version

    @property
    def other(self) -> int | None:
        """The version to compare this one with: the one before it, else the one after."""
        numbers = [line.version.version for line in self.versions]
        earlier = [number for number in numbers if number < self.version.version]
        later = [number for number in numbers if number > self.version.version]
        return max(earlier) if earlier else min(later, default=None)


def adapter_view(
    session: Session,
    slug: str,
    number: int | str | None = None,
    *,
    all_versions: bool = False,
    before: int | None = None,
) -> AdapterView:
    """Contents of the adapter page. Raises NotFound."""
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, number)
    found = service.version_dataset(session, version)
    base = service.version_base(session, version)
    summary = service.summary(session, adapter)
    names = aliases.alias_numbers(session, adapter.key)
    gallery = list_adapter_images(session, summary, version, before=before)
    downloads = _list_downloads(session, adapter, version)
    refused = {(file.title, file.dtype) for file in downloads if file.refusal}
    return AdapterView(
        adapter=adapter,
        summary=summary,
        version=version,
        versions=_version_lines(session, version, names, all_versions=all_versions),
        aliases=names,
        run=service.version_run(session, version),
        base=base,
        base_fingerprint=version.details.get("base_fingerprint")
        or (base.fingerprint if base else None),
        dataset=found[0] if found else None,
        pinned=found[1] if found else None,
        gallery=gallery,
        downloads=downloads,
        snippets=_make_snippets(adapter, version, gallery.shown),
        proofs=[
            proof
            for proof in file_proofs(session, version)
            if proof.with_tags or (proof.title, proof.dtype) not in refused
        ],
        here=service.still_here(session, _made_of(version)),
    )


def _made_of(version: AdapterVersion) -> list[int]:
    parts = version.details.get("made", {}).get("parts", [])
    return [part.get("adapter_id", 0) for part in parts]


def _version_lines(
    session: Session, version: AdapterVersion, names: dict[str, int], *, all_versions: bool
) -> list[VersionLine]:
    """The newest versions, those with an alias, and the shown one."""
    limit = ALL_VERSIONS if all_versions else VERSIONS
    shown = {
        row.version: row for row in service.list_versions(session, version.adapter_id, limit=limit)
    }
    missing = (set(names.values()) | {version.version}) - shown.keys()
    for row in service.versions_by_number(session, version.adapter_id, missing):
        shown[row.version] = row
    return [
        VersionLine(shown[number], list(aliases.by_number(names, number)))
        for number in sorted(shown, reverse=True)
    ]


def _list_downloads(session: Session, adapter: Adapter, version: AdapterVersion) -> list[Download]:
    written = {
        (file.format, file.dtype): file.size_bytes
        for file in service.version_files(session, version.key)
        if not file.with_tags
    }
    refused = refusals(session, version.key)
    return [
        Download(
            format=file_format,
            title=file_format.label,
            used_by=used_by,
            dtype=dtype,
            href=f"/api/v1/adapters/{adapter.key}/download"
            f"?format={file_format}&dtype={dtype}&version={version.version}",
            size_bytes=written.get((file_format, dtype)),
            refusal=refused.get((file_format, dtype)),
        )
        for file_format, used_by in PROGRAMS.items()
        for dtype in WeightDtype
    ]


def _make_snippets(
    adapter: Adapter, version: AdapterVersion, images: list[AdapterImage]
) -> list[Snippet]:
    filename = file_name(adapter.slug, version.version)
    stem = file_stem(adapter.slug, version.version)
    words = ", ".join(adapter.trigger_words)
    prompt = images[0].title if images else words or "a castle"
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

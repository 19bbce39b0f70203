"""Contents of the adapter page: images, facts, files and snippets for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from app.registry.adapters import service
from app.registry.adapters.downloads import refusals
from app.registry.adapters.proofs import FileProof, file_proofs, proof_sentences
from app.registry.adapters.service import AdapterSummary
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.create_version import next_number
from app.registry.blobs.report import bad_files_of
from app.registry.blobs.subjects import Subject
from app.registry.datasets.used_datasets import TrainedDataset, version_datasets
from app.registry.db import MAX_ID, Session
from app.registry.renders.adapter_images import (
    AdapterImages,
    LeadImages,
    lead_images,
    list_renders,
    prompt_to_try,
)
from app.registry.renders.removal import has_removed
from app.registry.tables.adapters import LATEST, Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Run
from worker.core.families.family import FALLBACK_FAMILY, find_family
from worker.core.lora_files.file_names import file_name, file_stem
from worker.core.words import FileFormat, WeightDtype

PROGRAMS = {
    FileFormat.KOHYA: "ComfyUI, A1111, Forge, InvokeAI",
    FileFormat.PEFT: "diffusers, peft",
    FileFormat.BUNDLE: "all files with a model card and the cover, as .zip",
}
OTHER_PROGRAMS = {  # of families with a transformer
    FileFormat.KOHYA: "ComfyUI, InvokeAI, stable-diffusion.cpp, diffusers",
}
FOLDED = 8
A_PAGE = 50
ALL = "all"  # in the address: the first page of versions; a number: those below it


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
class VersionList:
    """Versions with their aliases, newest first; `is_page`: a page of all, not the folded list.

    `older`: what the address of the next page says; None on the last page. `other`: the version to
    compare the shown one with, the one before it, else another.
    """

    lines: list[tuple[AdapterVersion, list[str]]]
    is_page: bool
    older: int | None
    other: int | None
    next_number: int


@dataclass(frozen=True)
class AdapterView:
    """An adapter with one of its versions; `here`: ids of its source adapters that still exist."""

    adapter: Adapter
    summary: AdapterSummary
    version: AdapterVersion
    versions: VersionList
    aliases: dict[str, int]
    run: Run | None
    base: BaseModel | None
    base_fingerprint: str | None
    datasets: list[TrainedDataset]
    lead: LeadImages
    renders: AdapterImages
    has_removed: bool
    downloads: list[Download]
    snippets: list[tuple[str, str]]
    proofs: list[FileProof]
    bad_files: list[str]
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
    def works_in(self) -> list[str]:
        """Where the files work, as sentences."""
        return proof_sentences([proof for proof in self.proofs if not proof.with_tags])

    @property
    def prompt(self) -> str:
        """A prompt that shows what the adapter does; empty if none is known."""
        return prompt_to_try(self.adapter, [*self.lead.choices, *self.renders.shown])

    def play_address(self, prompt: str = "", seed: int | None = None) -> str:
        """The address of the playground with the shown version."""
        is_usual = self.is_used and self.adapter.is_listed
        name = self.adapter.slug + ("" if is_usual else f"@{self.version.version}")
        values = {"adapter": name, "prompt": prompt, "seed": "" if seed is None else seed}
        query = urlencode({key: value for key, value in values.items() if value != ""}, safe=":@")
        return f"/play?{query}"

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


def adapter_view(
    session: Session,
    slug: str,
    number: int | str | None = None,
    *,
    versions: str = "",
    before: int | None = None,
    image: str = "",
) -> AdapterView:
    """Contents of the adapter page. Raises NotFound.

    `image`: the hash of the one to show large; `versions`: the page of the list of versions.
    """
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, number)
    base = service.version_base(session, version)
    summary = service.summary(session, adapter)
    names = aliases.alias_numbers(session, adapter.key)
    lead = lead_images(session, summary, version, chosen=image)
    downloads = _list_downloads(session, adapter, version)
    refused = {(file.title, file.dtype) for file in downloads if file.refusal}
    return AdapterView(
        adapter=adapter,
        summary=summary,
        version=version,
        versions=_list_versions(session, adapter, version, names, versions),
        aliases=names,
        run=service.version_run(session, version),
        base=base,
        base_fingerprint=version.details.get("base_fingerprint")
        or (base.fingerprint if base else None),
        datasets=version_datasets(session, version),
        lead=lead,
        renders=list_renders(session, summary, before=before),
        has_removed=has_removed(session, adapter.key),
        downloads=downloads,
        snippets=_make_snippets(adapter, version, lead),
        proofs=[
            proof
            for proof in file_proofs(session, version)
            if proof.with_tags or (proof.title, proof.dtype) not in refused
        ],
        bad_files=bad_files_of(session, Subject.ADAPTER, adapter.key),
        here=service.still_here(session, _made_of(version)),
    )


def _made_of(version: AdapterVersion) -> list[int]:
    parts = version.details.get("made", {}).get("parts", [])
    return [part.get("adapter_id", 0) for part in parts]


def _list_versions(
    session: Session,
    adapter: Adapter,
    shown: AdapterVersion,
    names: Mapping[str, int],
    page: str = "",
) -> VersionList:
    """The newest versions, those with an alias and the shown one, or the `page` of the address."""
    below = _below(page)
    found = (
        _folded(session, shown, names)
        if below is None
        else service.list_versions(session, adapter.key, limit=A_PAGE + 1, before=below)
    )
    has_older = below is not None and len(found) > A_PAGE
    found = found[:A_PAGE] if has_older else found
    before = service.list_versions(session, adapter.key, limit=1, before=shown.version)
    others = [row.version for row in before or reversed(found) if row.version != shown.version]
    return VersionList(
        lines=[(row, list(aliases.by_number(dict(names), row.version))) for row in found],
        is_page=below is not None,
        older=found[-1].version if has_older else None,
        other=next(iter(others), None),
        next_number=next_number(session, adapter),
    )


def _below(page: str) -> int | None:
    if page == ALL:
        return MAX_ID
    return int(page) if page.isascii() and page.isdigit() else None


def _folded(
    session: Session, shown: AdapterVersion, names: Mapping[str, int]
) -> list[AdapterVersion]:
    newest = service.list_versions(session, shown.adapter_id, limit=FOLDED)
    missing = {*names.values(), shown.version} - {row.version for row in newest}
    found = newest + service.versions_by_number(session, shown.adapter_id, missing)
    return sorted(found, key=lambda row: row.version, reverse=True)


def _list_downloads(session: Session, adapter: Adapter, version: AdapterVersion) -> list[Download]:
    written = {
        (file.format, file.dtype): file.size_bytes
        for file in service.version_files(session, version.key)
        if not file.with_tags
    }
    refused = refusals(session, version.key)
    programs = PROGRAMS if _has_text_layers(adapter) else PROGRAMS | OTHER_PROGRAMS
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
        for file_format, used_by in programs.items()
        for dtype in WeightDtype
    ]


def _make_snippets(
    adapter: Adapter, version: AdapterVersion, lead: LeadImages
) -> list[tuple[str, str]]:
    """Texts that make other programs use the adapter, each with the names of these."""
    filename = file_name(adapter.slug, version.version, is_step=not adapter.is_listed)
    stem = file_stem(adapter.slug, version.version, is_step=not adapter.is_listed)
    words = ", ".join(adapter.trigger_words)
    known = (image.title for image in lead.choices)
    prompt = next(filter(None, known), words or "a castle")
    weight = f"{version.usual_weight:g}"
    tag = f"<lora:{stem}:{weight}>" + (f" {words}" if words else "")
    is_sd = _has_text_layers(adapter)
    in_comfyui = f"{filename}\nstrength_model {weight}"
    return [
        (
            "diffusers",
            f'pipe.load_lora_weights("{filename}", adapter_name="{adapter.slug}")\n'
            f'pipe.set_adapters("{adapter.slug}", {weight})\n'
            f"image = pipe({prompt!r}).images[0]",
        ),
        ("A1111, Forge, SD.Next" if is_sd else "stable-diffusion.cpp", tag),
        ("ComfyUI, Load LoRA", f"{in_comfyui}, strength_clip {weight}")
        if is_sd
        else ("ComfyUI, LoraLoaderModelOnly", in_comfyui),
    ]


def _has_text_layers(adapter: Adapter) -> bool:
    """False for a family whose adapters never change its text encoder."""
    family = find_family(adapter.base_family) or FALLBACK_FAMILY
    return "train_text_encoder" not in family.facts.options.training

"""What the page of an adapter shows: pictures, facts, files, and how to use it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.adapters import aliases, service
from app.adapters.models import LATEST, Adapter, AdapterVersion
from app.adapters.proofs import FileProof, file_proofs
from app.adapters.refusals import refusals
from app.adapters.service import AdapterSummary, DownloadDtype, DownloadFormat
from app.base_models.models import BaseModel
from app.datasets.models import Dataset, DatasetVersion
from app.errors import InvalidInput
from app.playground import service as playground
from app.runs.models import Run, Sample

FORMAT_WORDS = {
    DownloadFormat.KOHYA: ("kohya", "ComfyUI, A1111, Forge, InvokeAI"),
    DownloadFormat.PEFT: ("diffusers / PEFT", "diffusers, peft"),
    DownloadFormat.BUNDLE: ("Bundle", "all files with a card and the cover, as .zip"),
}
USUAL_WEIGHT = "0.8"
PICTURES = 12
VERSIONS = 8
ALL_VERSIONS = 200


@dataclass(frozen=True)
class Picture:
    """A picture drawn with the adapter."""

    sha256: str
    title: str
    href: str
    is_cover: bool


@dataclass(frozen=True)
class Download:
    """A file that can be had, with its size once it was written; `refusal`: why it cannot."""

    format: str
    title: str
    used_by: str
    dtype: str
    href: str
    size_bytes: int | None
    refusal: str | None = None


@dataclass(frozen=True)
class Snippet:
    """A piece of text that makes another program use the adapter."""

    title: str
    text: str


@dataclass(frozen=True)
class Pictures:
    """Some pictures of an adapter; `older` is where those before them begin."""

    shown: list[Picture]
    older: int | None


@dataclass(frozen=True)
class VersionLine:
    """A version in the list of versions."""

    version: AdapterVersion
    aliases: list[str]


@dataclass(frozen=True)
class AdapterView:
    """An adapter with one of its versions; `here`: those it was made of that can be linked to."""

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
    gallery: Pictures
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
        """The file most programs read in the first dtype in which it can be had."""
        kohya = [file for file in self.downloads if file.format == self.main_download.format]
        return next((file for file in kohya if not file.refusal), None)

    @property
    def refused(self) -> list[Download]:
        """The files that cannot be had."""
        return [file for file in self.downloads if file.refusal]

    @property
    def pictures(self) -> list[Picture]:
        """The first pictures."""
        return self.gallery.shown

    @property
    def version_count(self) -> int:
        """How many versions there are, shown or not."""
        return self.summary.version_count

    @property
    def names(self) -> list[str]:
        """The aliases of the version that is shown."""
        return list(aliases.by_number(self.aliases, self.version.version))

    @property
    def is_used(self) -> bool:
        """True when this is the version that is used when none is named."""
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
    """The page of an adapter; NotFound when there is no such adapter or version."""
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, number)
    found = service.version_dataset(session, version)
    base = service.version_base(session, version)
    summary = service.summary(session, adapter)
    names = aliases.alias_numbers(session, adapter.key)
    gallery = more_pictures(session, summary, version, before=before)
    downloads = _downloads(session, adapter, version)
    refused = {(file.title, file.dtype) for file in downloads if file.refusal}
    return AdapterView(
        adapter=adapter,
        summary=summary,
        version=version,
        versions=_lines(session, version, names, all_versions=all_versions),
        aliases=names,
        run=service.version_run(session, version),
        base=base,
        base_fingerprint=version.details.get("base_fingerprint")
        or (base.fingerprint if base else None),
        dataset=found[0] if found else None,
        pinned=found[1] if found else None,
        gallery=gallery,
        downloads=downloads,
        snippets=_snippets(adapter, version, gallery.shown),
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


def _lines(
    session: Session, version: AdapterVersion, names: dict[str, int], *, all_versions: bool
) -> list[VersionLine]:
    """The newest versions, those that have a name, and the one that is shown."""
    limit = ALL_VERSIONS if all_versions else VERSIONS
    shown = {
        row.version: row for row in service.list_versions(session, version.adapter_id, limit=limit)
    }
    missing = (set(names.values()) | {version.version}) - shown.keys()
    if missing:
        of_adapter = select(AdapterVersion).where(AdapterVersion.adapter_id == version.adapter_id)
        for row in session.exec(of_adapter.where(col(AdapterVersion.version).in_(missing))):
            shown[row.version] = row
    return [
        VersionLine(shown[number], list(aliases.by_number(names, number)))
        for number in sorted(shown, reverse=True)
    ]


def more_pictures(
    session: Session,
    summary: AdapterSummary,
    version: AdapterVersion,
    *,
    before: int | None = None,
) -> Pictures:
    """The samples of the last step, then what was drawn in the playground, each once.

    With `before`, the id of a render, only what was drawn before that.
    """
    found = []
    if before is None:
        found = [
            (sample.sha256, sample.prompt, f"/media/{sample.sha256}")
            for sample in service.version_samples(session, version)
        ]
    renders = playground.adapter_renders(
        session, summary.adapter.key, limit=PICTURES + 1, before=before
    )
    has_older, renders = len(renders) > PICTURES, renders[:PICTURES]
    images = playground.first_images(session, renders)
    found += [
        (images[render.key].sha256, render.prompt, f"/renders/{render.key}")
        for render in renders
        if render.key in images
    ]
    cover = summary.covers[:1]
    unique = {sha256: (sha256, title, href) for sha256, title, href in reversed(found)}
    return Pictures(
        shown=[
            Picture(sha256, title, href, is_cover=[sha256] == cover)
            for sha256, title, href in reversed(unique.values())
        ],
        older=renders[-1].key if has_older else None,
    )


def require_picture(session: Session, adapter_id: int, sha256: str) -> None:
    """InvalidInput unless this picture is a sample of the adapter or was drawn with it."""
    sampled = (
        select(Sample.id)
        .join(AdapterVersion, col(AdapterVersion.run_id) == col(Sample.run_id))
        .where(AdapterVersion.adapter_id == adapter_id, Sample.sha256 == sha256)
    )
    if session.exec(sampled.limit(1)).first() is not None:
        return
    if not playground.is_picture_of(session, adapter_id, sha256):
        sentence = "Only a picture drawn with this adapter can be its cover."
        raise InvalidInput(sentence, fields={"cover_sha256": sentence})


def _downloads(session: Session, adapter: Adapter, version: AdapterVersion) -> list[Download]:
    written = {
        (file.format, file.dtype): file.size_bytes
        for file in service.version_files(session, version.key)
        if not file.with_tags
    }
    refused = refusals(session, version.key)
    return [
        Download(
            format=file_format,
            title=title,
            used_by=used_by,
            dtype=dtype,
            href=f"/api/v1/adapters/{adapter.key}/download"
            f"?format={file_format}&dtype={dtype}&version={version.version}",
            size_bytes=written.get((file_format, dtype)),
            refusal=refused.get((file_format, dtype)),
        )
        for file_format, (title, used_by) in FORMAT_WORDS.items()
        for dtype in DownloadDtype
    ]


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

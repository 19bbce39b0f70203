"""Which adapter fits which base, told without weights, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from app.registry.adapters import fitting, service
from app.registry.adapters.fitting import AdapterAndVersion, BaseKind
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.db import Database
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel
from app.web.playground.adapter_picker import find_adapter_choices

SMALL, LARGE = 17_000_000, 859_520_964


def add_base(session: Session, name: str, unet: int | None, family: str = "sd1") -> BaseModel:
    parameters = {} if unet is None else {"unet": unet}
    base = BaseModel(slug=name, name=name, source=name, family=family, parameters=parameters)
    base.status = "ready"
    session.add(base)
    session.flush()
    return base


def add(
    session: Session, name: str, base: BaseModel | None, family: str = "sd1"
) -> AdapterAndVersion:
    key = base.key if base else None
    version = publish(session, NewVersion(name, family, "a" * 64, 1, 4, 4.0, base_model_id=key))
    return session.get_one(Adapter, version.adapter_id), version


@pytest.mark.parametrize(
    ("made_for", "base", "fits"),
    [
        (("sd1", LARGE), ("sd1", LARGE), True),
        (("sd1", LARGE), ("sd1", 859_535_364), True),  # an inpainting base
        (("sd1", LARGE), ("sd1", SMALL), False),
        (("sd1", SMALL), ("sd1", LARGE), False),
        (("sd1", 865_910_724), ("sd2", 865_910_724), False),
        (("sdxl", 2_567_463_684), ("sdxl", 1_300_000_000), False),  # a distilled one
        (("sd1", None), ("sd1", LARGE), True),
        (("sd1", LARGE), ("sd1", None), True),
        (("sd1", LARGE), (None, None), True),
        (("sd1", None), ("sdxl", None), False),
    ],
)
def test_family_and_size_decide_and_what_is_not_known_fits(
    made_for: tuple[str, int | None], base: tuple[str | None, int | None], fits: bool
) -> None:
    assert BaseKind("a", *made_for).fits(BaseKind("b", *base)) is fits


def test_the_sentence_names_the_bases_that_fit(database: Database) -> None:
    with database.write() as session:
        small = add_base(session, "small", SMALL)
        real = add(session, "Real", None)
        (kind,) = fitting.kinds(session, [real])
        told = fitting.misfit(real[0], kind, small, [small])
        start = "“Real” was made for SD 1.x and does not fit “small”."
        assert told == f"{start} No base model here fits it. Add one on the base models page."
        bases = [small]
        for count, names in (
            (1, "“b1”"),
            (2, "“b1” and “b2”"),
            (3, "“b1”, “b2” and “b3”"),
            (5, "“b1”, “b2”, “b3” and 2 more"),
        ):
            bases += [
                add_base(session, f"b{number}", LARGE) for number in range(len(bases), count + 1)
            ]
            told = fitting.misfit(real[0], kind, small, bases)
            assert told == f"{start} It fits {names}."
        bases[1].status = "failed"
        assert "“b1”" not in fitting.misfit(real[0], kind, small, bases)
        assert fitting.misfit(real[0], kind, bases[2], bases) == ""


def test_only_adapters_that_fit_are_suggested(database: Database) -> None:
    with database.write() as session:
        small, large = add_base(session, "small", SMALL), add_base(session, "large", LARGE)
        unknown = add_base(session, "unknown", None)
        ink, chalk = add(session, "Ink", small), add(session, "Chalk", small)
        real, _ = add(session, "Real", None), add(session, "Other", large)
        any_base = add(session, "Any", unknown)
        add(session, "XL", None, family="sdxl")
        deleted = add(session, "Deleted", small)
        service.delete_adapter(session, deleted[0].key)
        session.flush()

        def suggested(made: AdapterAndVersion) -> set[str]:
            (kind,) = fitting.kinds(session, [made])
            found = find_adapter_choices(session, "", used=[made[0].slug], base_kind=kind)
            return {choice.adapter.name for choice in found.adapters}

        assert suggested(ink) == {"Chalk", "Any"}
        assert suggested(real) == {"Other", "Any"}
        assert suggested(any_base) == {"Ink", "Chalk", "Real", "Other"}
        assert fitting.stranger([ink, chalk], fitting.kinds(session, [ink, chalk])) == ""
        assert "“Real” for SD 1.x" in fitting.stranger(
            [ink, chalk, real], fitting.kinds(session, [ink, chalk, real])
        )


def test_many_versions_cost_one_query_or_none(database: Database) -> None:
    with database.write() as session:
        base = add_base(session, "small", SMALL)
        made = [add(session, f"Ink {number}", base) for number in range(9)]
    statements: list[str] = []
    sa.event.listen(
        database.engine, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    with database.read() as session:
        assert len(fitting.kinds(session, made)) == 9
        assert len([text for text in statements if "SELECT" in text]) == 1
        fitting.kinds(session, made, known=[base])
        assert len([text for text in statements if "SELECT" in text]) == 1

from collections import Counter
from pathlib import Path

from worker.core.starter.subjects import (
    PATH,
    KnownSubject,
    known_subjects,
    write_known_subjects,
)


def test_the_list_names_subjects_of_five_groups_once_each() -> None:
    subjects = known_subjects()
    groups = Counter(subject.group for subject in subjects)
    assert set(groups) == {
        "animals-nature",
        "food-drink",
        "travel-places",
        "activities",
        "objects",
    }
    assert len(subjects) > 700
    assert len({subject.name for subject in subjects}) == len(subjects)
    assert PATH.stat().st_size < 128 * 1024


def test_a_name_means_the_drawing_of_one_set_and_every_set_is_meant_somewhere() -> None:
    meant = Counter(subject.drawn_by for subject in known_subjects())
    assert set(meant) == {"noto", "twemoji", "fluent"}
    assert min(meant.values()) > 50


def test_a_plain_name_means_one_subject() -> None:
    meant = {name: subject.name for subject in known_subjects() for name in subject.plain_names}
    assert meant["tree"] == "deciduous tree"
    assert sum(len(subject.plain_names) for subject in known_subjects()) == len(meant)


def test_no_keyword_is_a_name_of_another_subject() -> None:
    subjects = known_subjects()
    names = {name for subject in subjects for name in (subject.name, *subject.plain_names)}
    for subject in subjects:
        assert names & set(subject.keywords) <= set(subject.plain_names), subject.name


def test_a_written_list_has_a_line_for_each_subject_and_the_notice(tmp_path: Path) -> None:
    path = tmp_path / "subjects.json"
    fox = KnownSubject("fox", "animals-nature", ("red fox",), ("animal",), "noto")
    write_known_subjects([fox, fox], path, notice='Drawn by "others".')
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert '"others\\"' in lines[0]
    assert lines[1] == (
        '{"name": "fox", "group": "animals-nature", "plain_names": ["red fox"], '
        '"keywords": ["animal"], "drawn_by": "noto"},'
    )

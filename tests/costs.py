"""The cost of a test, by the folder it is in: its marker and its place in the order.

`make check` runs what is marked `unit` and imports nothing else: rules and services on SQLite, not
whole pages and commands, nor the cases on PostgreSQL. `make faults` runs what is marked
`faults`, `make tools` what is marked `tools`: tests of what maintainers run and the product does
not need; `make wide` what is marked `wide`: cases of a full product that others say nearly the same
of. `make test` runs everything but these on every core: a file stays in one process, so that its
fixtures are made once, as do files that share a costly one. What takes longest starts first, so
that no core is idle at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent

FOLDERS = {
    "bench": "tools",
    "browser": "browser",
    "faults": "faults",
    "stack": "stack",
    "tools": "tools",
    "app/access/test_proxies.py": "process",
    "app/api_reference": "pages",
    "app/blind_tests": "pages",
    "app/cli": "pages",
    "app/deletion": "pages",
    "app/web": "pages",
    "docs/test_curls.py": "stack",
    "compat": "slow",
    "app/cli/test_adapters_tools.py": "slow",
    "app/install": "tools",
    "app/supervisor": "process",
    "worker/runtime": "process",
    "worker/bases/test_inspect.py": "slow",
    "worker/bases/test_load.py": "slow",
    "worker/bases/test_load_memory.py": "slow",
    "worker/bases/test_preload.py": "slow",
    "worker/bases/test_text.py": "slow",
    "worker/bases/test_threads.py": "slow",
    "worker/bases/test_token_counts.py": "slow",
    "worker/bases/test_transformers.py": "slow",
    "worker/captioning/test_local.py": "slow",
    "worker/evaluation/test_command.py": "slow",
    "worker/evaluation/test_measures.py": "slow",
    "worker/evaluation/test_subjects.py": "slow",
    "worker/eyes/test_embedded.py": "slow",
    "worker/eyes/test_transformers_models.py": "slow",
    "worker/eyes/test_weights.py": "slow",
    "worker/families": "slow",
    "worker/inference": "slow",
    "worker/lora_files/programs": "slow",
    "worker/lora_files/proof": "slow",
    "worker/lora_files/test_compatible.py": "slow",
    "worker/lora_files/test_converting.py": "slow",
    "worker/lora_files/test_export.py": "slow",
    "worker/lora_files/test_kept.py": "slow",
    "worker/lora_files/tools/test_extract.py": "slow",
    "worker/lora_files/tools/test_fuse.py": "slow",
    "worker/starter": "slow",
    "worker/training": "slow",
    "worker/test_fake_gpu.py": "slow",
}
"""The marker of every test in this folder or file; the others are `pages` or `unit`, by their name.

What builds networks with diffusers and transformers is `slow`: importing them alone takes seconds.
"""

PAGES = "test_*pages.py"

NETWORKS = {"torch", "diffusers", "transformers", "peft"}
"""Libraries that take seconds to import, and hundreds of megabytes in each process."""

loaded_by: dict[str, str] = {}
"""Each of `NETWORKS` that the collection of this session imported, with the first file that did."""

LONGEST_FIRST = (
    "faults",
    "tools",
    "wide",
    "stack",
    "process",
    "slow",
    "browser",
    "pages",
    "database",
    "unit",
)

ON_POSTGRESQL = {
    "app/adapters/test_listing.py",
    "app/blobs/test_ownership.py",
    "app/datasets/test_filters.py",
    "app/deletion/test_concurrent.py",
    "app/jobs/test_leases.py",
    "app/jobs/test_presence.py",
    "app/people/test_races.py",
    "app/runs/test_listing.py",
    "app/test_migrate.py",
    "app/test_slugs.py",
    "app/web/test_idempotency.py",
    "app/web/test_nul.py",
    "app/web/test_outages.py",
    "worker/runtime/test_outages.py",
    "worker/runtime/upkeep/test_store_recorder.py",
    "app/adapters/test_aliases.py::test_adapters_of_one_name_made_at_once_get_addresses_of_their_own",
    "app/adapters/test_aliases.py::test_the_same_tensors_published_at_once_are_one_adapter",
    "app/adapters/test_aliases.py::test_two_who_move_one_alias_leave_one",
    "app/adapters/test_aliases.py::test_versions_published_at_once_get_numbers_of_their_own",
    "app/adapters/test_deleted.py::test_a_deleted_list_needs_no_look_at_every_adapter",
    "app/adapters/test_folders.py::test_what_two_order_at_once_is_written_once",
    "app/adapters/test_trained_on.py::test_no_version_is_read_that_was_trained_on_others",
    "app/blobs/test_sweep.py::test_of_workers_that_ask_at_once_one_gets_it",
    "app/blobs/test_sweep.py::test_what_two_sweeps_take_at_once_stays_in_the_trash",
    "app/blobs/test_thumbnails.py::test_a_job_is_ordered_where_thumbnails_are_missing",
    "app/datasets/edits/test_edits.py::"
    "test_two_moves_between_the_same_datasets_do_not_wait_for_each_other",
    "app/datasets/test_service.py::test_a_caption_written_during_an_upload_is_kept",
    "app/runs/test_checkpoints.py::test_using_it_twice_at_once_makes_one_version",
    "app/runs/test_several_datasets.py::"
    "test_requests_with_the_same_datasets_do_not_wait_for_each_other",
}
"""Files and tests whose subject differs between databases: in `make test`, they run on both.

These are search, plans and order of text, upserts, locks, triggers and concurrency, and outages.
Other cases on PostgreSQL run statements that every database runs alike: they are `wide`.
"""

TOGETHER = {
    "docs/test_curls.py": "one stack",
    "stack/test_generated_client.py": "one stack",
    "stack/test_main_job.py": "one stack",
    "worker/runtime/local_captions/test_jobs.py": "trained",
    "worker/runtime/test_calibration.py": "trained",
    "worker/runtime/test_caption_jobs.py": "trained",
    "worker/runtime/test_dry_runs.py": "trained",
    "worker/runtime/test_evaluation_jobs.py": "trained",
    "worker/runtime/test_hub_adapters.py": "trained",
    "worker/runtime/test_hub_jobs.py": "trained",
    "worker/runtime/test_io_jobs.py": "trained",
    "worker/runtime/test_joint_runs.py": "trained",
    "worker/runtime/test_outages.py": "trained",
    "worker/runtime/test_write_downloads.py": "trained",
    "worker/runtime/test_quick_trainer.py": "trained",
    "worker/runtime/test_render_jobs.py": "trained",
    "worker/runtime/test_retired_base.py": "trained",
    "worker/runtime/test_stack.py": "trained",
    "worker/runtime/test_train_jobs.py": "trained",
    "worker/runtime/test_training_sweeps.py": "trained",
    "worker/runtime/test_owners.py": "trained",
    "worker/runtime/test_trouble.py": "trained",
    "worker/runtime/time_limits/test_limited_jobs.py": "trained",
    "worker/runtime/upkeep/test_folder_jobs.py": "trained",
}
"""The fixtures of a whole session that these files share: one process runs all of them.

Two processes would both start a trainer, train a run and start the process that forks trainers, or
the whole stack: more than twenty CPU seconds a second time.
"""

USES_OF_SHARED_FIXTURES = (
    "trained: TrainedRegistry", r"\.train_jobs\(", r"\.trainers\.", "stack: Stack", '"forked_hub"',
)  # fmt: skip
"""A file of tests that has one of these makes such a fixture, so it is in `TOGETHER`."""

SECONDS = {
    "faults/test_away_services.py": 280,
    "faults/test_one_machine.py": 260,
    "faults/test_generated_requests.py": 220,
    "faults/test_long_input.py": 180,
    "faults/test_full_disk.py": 170,
    "trained": 140,
    "browser/test_axe.py": 80,
    "faults/test_clocks.py": 70,
    "one stack": 60,
    "worker/training/test_loop.py": 20,
}
"""Seconds of the longest files and groups of `TOGETHER` on one core, roughly: they start first.

All others follow in the order of `LONGEST_FIRST`; the last ones are short. Those of `faults` mostly
wait, and `make faults` runs three at a time: it ends when the longest has ended.
"""


BUDGET = {
    "app": 240,
    "browser": 150,
    "compat": 5,
    "docs": 12,
    "stack": 40,
    "worker": 170,
    "worker/runtime": 95,
    "worker/training": 75,
    "collection": 45,
    "": 25,
}
"""CPU seconds of a folder's tests in `make test`, with the processes that they wait for, at most.

`collection` is that of all processes; other files and folders count for "". `make costs` prints
what the last `make test` cost; no test asserts it. Measured on two cores of an EPYC (Zen 4), where
the sum was 738, and rounded up by a tenth.
"""


def worker_count(cores: int, markers: str = "") -> int:
    """The processes that run the tests with these markers on this many cores.

    Tests that started processes or a browser wait for them, so there is one process more than
    cores. Those of `unit` wait for nothing, and each process collects them all again.
    """
    return cores if markers == "unit" else cores + 1


def add_markers(items: Iterable[pytest.Item]) -> None:
    """Mark each test with its cost."""
    for item in items:
        if is_wide(item):
            item.add_marker("wide")
        cost = cost_of(item)
        if cost == "unit" and database_of(item) == "postgresql":
            cost = "database"
        if item.get_closest_marker(cost) is None:
            item.add_marker(cost)


def is_wide(item: pytest.Item) -> bool:
    """True for a case on PostgreSQL of a test that says the same of every database."""
    if database_of(item) != "postgresql":
        return False
    file = item.path.relative_to(TESTS).as_posix()
    test = f"{file}::{getattr(item, 'originalname', item.name)}"
    return not {file, test} & ON_POSTGRESQL


def wide_but(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """The cases of a product, of which `make test` runs those that are kept."""
    wide = pytest.mark.wide
    return [
        case
        if case in kept
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=wide)
        for case in cases
    ]


def database_of(item: pytest.Item) -> str | None:
    """The database that the case is for, if it has one for each."""
    case = getattr(item, "callspec", None)
    return case.params.get("database") if case else None


def cost_of(item: pytest.Item) -> str:
    """The marker the test or its file carries itself, else the one of its folder."""
    own = {marker.name for marker in item.iter_markers()}
    return next((cost for cost in LONGEST_FIRST if cost in own), None) or cost_of_folder(item.path)


@functools.cache
def cost_of_folder(path: Path) -> str:
    """The marker of this file's folder in `FOLDERS`, the nearest one above it."""
    place = path.relative_to(TESTS)
    for folder in (place, *place.parents):
        if folder.as_posix() in FOLDERS:
            return FOLDERS[folder.as_posix()]
    return "pages" if place.match(PAGES) else "unit"


def scope_of(test: str) -> str:
    """The file of the test with this id, or its group of `TOGETHER`: one process runs all of it."""
    file = test.partition("::")[0]
    return TOGETHER.get(file.removeprefix(f"{TESTS.name}/"), file)


def folder_of_budget(test: str) -> str:
    """The folder of `BUDGET` that the test with this id is in, the nearest one above it."""
    place = Path(test.partition("::")[0].removeprefix(f"{TESTS.name}/"))
    found = (folder.as_posix() for folder in place.parents if folder.as_posix() in BUDGET)
    return next(found, "")


def is_left_out(path: Path, markers: str) -> bool:
    """True if these markers select nothing of this folder or file: it need not be imported."""
    cost = cost_of_folder(path)
    if markers in ("unit", "tools"):
        return cost != markers
    return f"not {cost}" in markers.split(" and ")


def sort_longest_first(items: list[pytest.Item]) -> None:
    """Move what takes longest to the front; the order is kept among equals."""
    items.sort(key=lambda item: place_of(item.nodeid, cost_of(item)))


def place_of(test: str, cost: str) -> tuple[int, int]:
    """A sort key: by seconds, the longest first, then by cost."""
    scope = scope_of(test).removeprefix(f"{TESTS.name}/")
    return -SECONDS.get(scope, 0), LONGEST_FIRST.index(cost)

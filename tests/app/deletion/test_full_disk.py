"""Space can be freed on a disk that is full to the last byte."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from app.registry.blobs import deletion as freeing
from app.registry.deletion import runs as deletion
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.state import make_state
from app.registry.tables.runs import Checkpoint
from app.web.space import SpaceReserve, frees_space
from tests import fake_workers
from tests.conftest import make_base_ready, make_settings
from tests.disks import fill, mounted_disk

STATE_BYTES = 3_000_000


def test_deleting_works_on_a_full_disk(tmp_path: Path, sqlite_template: Path) -> None:
    with mounted_disk(tmp_path / "disk", "size=32m") as disk:
        state = make_state(make_settings(disk / "data", sqlite_template))
        make_base_ready(state.database)
        fake_workers.adapter(state)
        with state.database.write() as session:
            sha256 = fake_workers.blob(state, bytes(STATE_BYTES))
            session.add(Checkpoint(run_id=1, step=40, sha256=sha256, size_bytes=STATE_BYTES))
        reserve = SpaceReserve(state.settings.data_dir, size=1_000_000)
        reserve.keep()
        fill(disk)
        assert state.store.free_bytes() == 0
        uses = {use.kind: use.size_bytes for use in storage_use(state)}
        assert uses[FileKind.CHECKPOINTS] == STATE_BYTES
        remove = partial(deletion.delete_run, run_id=1)
        announced = freeing.preview(state, remove)
        with reserve.lend():
            assert freeing.delete(state, remove) == announced
        free = state.store.free_bytes()
        assert free is not None
        assert free > STATE_BYTES // 2  # the rest went back into the reserve and the log
        state.database.dispose()


def test_the_forms_that_free_space_have_the_reserve() -> None:
    for address in ("/runs/3/delete", "/storage/forever/runs/3", "/storage/forever/checkpoints"):
        assert frees_space("POST", address), address
    assert not frees_space("POST", "/runs/3/restore")
    assert not frees_space("GET", "/storage/forever/runs/3")

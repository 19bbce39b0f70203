"""One Brushwork per data folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from app.registry.paths import ROOT
from app.supervisor.lock import DataFolderLock, LockOwner

HOLD = """
import sys, time
from pathlib import Path
from app.supervisor.lock import DataFolderLock, LockOwner
lock = DataFolderLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
lock.write(LockOwner(7, "http://127.0.0.1:8188", "/tmp/brushwork-x"))
print("written", flush=True)
time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert holder.stdout.readline() == "written\n"
    return holder


def test_a_second_one_learns_where_the_first_runs(tmp_path: Path) -> None:
    with hold(tmp_path) as holder, DataFolderLock(tmp_path) as lock:
        assert not lock.acquire()
        assert lock.owner() == LockOwner(7, "http://127.0.0.1:8188", "/tmp/brushwork-x")
        holder.kill()


def test_a_killed_holder_leaves_the_folder_free_and_its_traces_readable(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait(120)
    with DataFolderLock(tmp_path) as lock:
        assert lock.acquire()
        assert lock.owner() == LockOwner(7, "http://127.0.0.1:8188", "/tmp/brushwork-x")


def test_a_folder_left_in_order_names_nobody(tmp_path: Path) -> None:
    with DataFolderLock(tmp_path) as lock:
        assert lock.acquire()
        lock.write(LockOwner(7))
        lock.clear()
    with DataFolderLock(tmp_path) as other:
        assert other.acquire()
        assert other.owner() is None

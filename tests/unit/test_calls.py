"""One call at a time on the results of a study."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from pathlib import Path

import pytest

from circuitdrift.calls import STAMP, CallError, Holder, bring_to_the_present, only_call

HERE = socket.gethostname()


def test_a_call_holds_the_results_and_gives_them_back(tmp_path: Path) -> None:
    lock = tmp_path / "results" / "study" / ".in_use"
    for _ in range(2):
        with only_call(lock) as before:
            assert before is None
            assert lock.read_text() == f"{os.getpid()} {HERE}\n"
        assert list(lock.parent.iterdir()) == []


def test_a_second_call_is_refused_and_names_the_first(tmp_path: Path) -> None:
    lock = tmp_path / ".in_use"
    with only_call(lock):
        with pytest.raises(CallError, match=rf"another call .* \(process {os.getpid()} on {re.escape(HERE)}\); wait"):
            only_call(lock).__enter__()
        assert lock.is_file()


def test_studies_do_not_hinder_each_other(tmp_path: Path) -> None:
    with only_call(tmp_path / "one" / ".in_use"), only_call(tmp_path / "other" / ".in_use") as before:
        assert before is None


def test_a_failing_call_gives_the_results_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_call(tmp_path / ".in_use"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("host", "is_here"), [(HERE, True), ("another-" + HERE, False)])
def test_a_killed_call_is_named(tmp_path: Path, host: str, is_here: bool) -> None:
    lock = tmp_path / ".in_use"
    lock.write_text(f"4711 {host}\n")
    with only_call(lock) as before:
        assert before == Holder(4711, host)
        assert before.is_here is is_here
        assert str(before) == f"process 4711 on {host}"


@pytest.mark.parametrize("content", ["", "\n", "4711", "x y"])
def test_a_lock_that_says_nothing_is_nobodys(tmp_path: Path, content: str) -> None:
    lock = tmp_path / ".in_use"
    lock.write_text(content)
    with only_call(lock) as before:
        assert before is None


def test_a_lock_that_its_holder_has_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder before removes the file after we have opened it and before we lock it."""
    lock, flock, locked = tmp_path / ".in_use", fcntl.flock, []

    def removed_at_first(descriptor: int, operation: int) -> None:
        if not locked:
            lock.unlink()
        locked.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_at_first)
    with only_call(lock), pytest.raises(CallError, match="another call"):
        only_call(lock).__enter__()
    assert len(locked) == 3


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_results_that_cannot_be_written_are_refused_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CallError, match=rf"\.in_use: cannot be written \({os.strerror(number)}\); .*, then call again"):
        only_call(tmp_path / ".in_use").__enter__()


def test_a_file_system_without_locks_leaves_it_to_snakemake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another call may be at work there, so nothing is said about it."""

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    lock = tmp_path / ".in_use"
    lock.write_text(f"4711 {HERE}\n")
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with only_call(lock) as before:
        assert before is None
    assert lock.read_text() == f"4711 {HERE}\n"


def test_files_and_folders_of_the_future_get_the_present_time(tmp_path: Path) -> None:
    now, hour = time.time(), 3600.0
    file, old, folder = tmp_path / "file", tmp_path / "old", tmp_path / "folder"
    file.touch()
    old.touch()
    folder.mkdir()
    (folder / STAMP).touch()
    for path, moment in ((file, now + hour), (old, now - hour), (folder / STAMP, now + hour)):
        os.utime(path, (moment, moment))
    assert bring_to_the_present([file, old, folder, tmp_path / "missing"]) == [file, folder]
    assert now - hour == pytest.approx(old.stat().st_mtime)
    for path in (file, folder, folder / STAMP):
        assert path.stat().st_mtime == pytest.approx(now, abs=60)

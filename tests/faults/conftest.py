"""The finished study that nothing has disturbed, and small file systems."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from small_study import Study, Twin


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Twin:
    folder = tmp_path_factory.mktemp("twin") / "undisturbed"
    folder.mkdir()
    study = Study(folder)
    started = time.monotonic()
    study.finish()
    return Twin(study, study.digests(), time.monotonic() - started)


@pytest.fixture(autouse=True)
def _no_call_outlives_its_test(tmp_path: Path) -> Iterator[None]:
    """A test that fails may leave a call, and its jobs, at work."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(f"{tmp_path}{os.sep}") for word in process.info["cmdline"] or []):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study that has not begun."""
    folder = tmp_path / "study"
    folder.mkdir()
    return Study(folder)


@pytest.fixture
def finished(twin: Twin, tmp_path: Path) -> Study:
    """A copy of the finished study."""
    return twin.study.copy_to(tmp_path / "study")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """Mounts a file system in memory at a folder, or changes one: its options, such as its size."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        again = ["-o", f"remount,{options}"] if folder in mounted else ["-t", "tmpfs", "-o", options, "tmpfs"]
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *again, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

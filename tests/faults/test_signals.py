"""Kill, stop and interrupt Snakemake and its jobs at random moments: one more call ends in the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time

import psutil
import pytest
from small_study import GOES_ON, Call, Study, Twin, assert_no_job_is_left

pytestmark = pytest.mark.faults

KILLS = 50
SEED = 12
SHARE_OF_A_STUDY = 0.3
"""A call is killed after at most this share of the time of a study, so that it gets through a few jobs."""


def kill_snakemake(call: Call) -> None:
    call.process.kill()


def kill_everything(call: Call) -> None:
    call.signal_group(signal.SIGKILL)


def kill_a_job(call: Call) -> None:
    """The job that a random draw names, if any runs; Snakemake goes on and reports the failure."""
    if jobs := sorted(call.jobs(), key=lambda job: job.pid):
        try:
            jobs[-1].kill()
        except psutil.NoSuchProcess:
            return


@pytest.mark.parametrize("part", range(2))
def test_killed_at_random_moments_the_study_ends_in_the_same_bytes(study: Study, twin: Twin, part: int) -> None:
    """Each call goes on where the killed one before it stood; a study that gets finished in between begins again."""
    draw = random.Random(SEED + part)
    killed, calls_after_a_kill_of_snakemake, finished = 0, 0, 0
    while killed < KILLS // 2:
        call, moment = study.start(), time.monotonic() + draw.uniform(0.0, SHARE_OF_A_STUDY * twin.seconds)
        kill = draw.choice([kill_snakemake, kill_snakemake, kill_everything, kill_a_job])
        while call.is_running and time.monotonic() < moment:
            time.sleep(0.02)
        if call.is_running:
            kill(call)
            killed += 1
            ended = call.end()
            assert ended.code != 0 or kill is kill_a_job, ended.text
        else:
            ended = call.end()
            assert ended.code == 0, ended.text
            assert study.digests() == twin.digests
            shutil.rmtree(study.results)
            finished += 1
        calls_after_a_kill_of_snakemake += GOES_ON in ended.text
        assert "Directory cannot be locked" not in ended.text
    study.finish()
    assert study.digests() == twin.digests
    assert calls_after_a_kill_of_snakemake > KILLS // 8
    assert_no_job_is_left(study.folder)
    print(f"{killed} kills, {calls_after_a_kill_of_snakemake} calls went on from a kill, {finished} studies finished")


def test_jobs_end_when_their_snakemake_is_killed(study: Study) -> None:
    call = study.start()
    call.wait_for("pre-training step 1 ")
    jobs = call.jobs()
    assert jobs
    call.process.kill()
    gone, alive = psutil.wait_procs(jobs, timeout=60)
    assert gone
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_call_that_is_asked_to_end_ends_and_the_next_finishes(
    study: Study, twin: Twin, number: signal.Signals
) -> None:
    """SIGTERM to Snakemake, as a batch system sends it, or Ctrl-C to Snakemake and its jobs."""
    call = study.start()
    call.wait_for("rule finetune:")
    if number == signal.SIGINT:
        call.signal_group(number)
    else:
        call.process.send_signal(number)
    ended = call.end()
    assert ended.code != 0
    assert not (study.results / ".in_use").exists()
    assert_no_job_is_left(study.folder)
    study.finish()
    assert study.digests() == twin.digests


def test_ctrl_c_in_a_job_prints_no_traceback_of_it(study: Study) -> None:
    call = study.start()
    call.wait_for("pre-training step 1 ")
    (job,) = (job for job in call.jobs() if "pretrain.py" in " ".join(job.cmdline()))
    os.kill(job.pid, signal.SIGINT)
    ended = call.end()
    assert "interrupted; the next call goes on from here" in ended.text
    assert "Traceback" not in ended.text


def test_a_stopped_call_keeps_its_study_and_goes_on(study: Study, twin: Twin) -> None:
    call = study.start()
    call.wait_for("rule pretrain:")
    call.signal_group(signal.SIGSTOP)
    refused = study.call()
    assert refused.code == 1
    assert f"another call of snakemake works on this study (process {call.process.pid} on " in refused.text
    call.signal_group(signal.SIGCONT)
    ended = call.end()
    assert ended.code == 0, ended.text
    assert study.digests() == twin.digests

"""Facts of this machine: plausible, and read as the system writes them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archlab import machine
from archlab.machine import (
    Ceilings,
    available_bytes,
    available_cores,
    ceilings,
    cpu_name,
    output_of,
    process_space,
    process_started,
    query_gpus,
    single_thread,
    visible_gpus,
)

MEMINFO = "MemTotal:       16384000 kB\nMemFree:  1024 kB\nMemAvailable:    8192000 kB\n"
CGROUP = "/sys/fs/cgroup/"


@pytest.fixture
def files(monkeypatch) -> dict[str, str]:
    """The files of the system: those that a test writes, and no others."""
    found: dict[str, str] = {}
    monkeypatch.setattr(machine, "_read", lambda path: found.get(path, ""))
    return found


def test_the_module_is_imported_without_torch():
    program = "import sys, archlab.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_this_machine_has_cores_memory_and_a_processor():
    assert 1 <= available_cores() <= os.cpu_count()
    assert 2**28 < available_bytes() < 2**45
    assert cpu_name()


@pytest.mark.parametrize(("quota", "cores"), [("max 100000\n", 8), ("150000 100000\n", 2), ("50000 100000\n", 1), ("", 8)])
def test_the_quota_of_a_container_limits_the_cores(files, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    files[CGROUP + "cpu.max"] = quota
    assert available_cores() == cores


SLURM = "4:memory:/slurm/uid_7/job_1/step_0\n3:cpu,cpuacct:/slurm/uid_7/job_1/step_0\n1:name=systemd:/x\n0::/x\n"


@pytest.mark.parametrize(
    ("groups", "limits", "cores"),
    [
        ("0::/user.slice/run.scope\n", {"user.slice/run.scope/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 3),
        ("0::/user.slice/run.scope\n", {"user.slice/run.scope/cpu.max": "max 100000", "user.slice/cpu.max": "200000 100000"}, 2),
        ("0::/../../job\n", {"cpu.max": "200000 100000"}, 2),
        (SLURM, {"cpu/slurm/uid_7/job_1/cpu.cfs_quota_us": "250000", "cpu/slurm/uid_7/job_1/cpu.cfs_period_us": "100000"}, 3),
        (SLURM, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (SLURM, {"unified/x/cpu.max": "100000 100000"}, 1),
        ("", {}, 8),
        ("damaged\n::\n", {"cpu.max": "x y"}, 8),
    ],
)
def test_the_quotas_of_nested_groups_limit_the_cores(files, monkeypatch, groups, limits, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    files |= {"/proc/self/cgroup": groups} | {CGROUP + name: f"{text}\n" for name, text in limits.items()}
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("groups", "folder", "names"),
    [
        ("0::/a/b\n", "a", ("memory.max", "memory.current", "inactive_file 500000000")),
        (SLURM, "memory/slurm/uid_7/job_1", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file 500000000")),
    ],
)
def test_the_limits_of_nested_groups_are_subtracted(files, groups, folder, names):
    limit, used, cached = names
    values = {limit: "4000000000", used: "3000000000", "memory.stat": f"cache 1\n{cached}\n"}
    files |= {"/proc/self/cgroup": groups, "/proc/meminfo": MEMINFO} | {f"{CGROUP}{folder}/{n}": v for n, v in values.items()}
    files |= {f"{CGROUP}memory/memory.limit_in_bytes": str(2**63 - 4096), f"{CGROUP}memory/memory.usage_in_bytes": "5"}
    assert available_bytes() == 1_500_000_000


def test_the_affinity_of_the_process_limits_the_cores(files, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    files[CGROUP + "cpu.max"] = "400000 100000"
    assert available_cores() == 2


def test_memory_is_what_the_system_has_to_give(files):
    files["/proc/meminfo"] = MEMINFO
    assert available_bytes() == 8192000 << 10


@pytest.mark.parametrize(
    ("limit", "stat", "expected"),
    [
        ("5000000000", "", 2_000_000_000),
        ("5000000000", "anon 7\ninactive_file 1000000\n", 2_001_000_000),
        ("99000000000", "", 8192000 << 10),
        ("max", "", 8192000 << 10),
    ],
)
def test_the_limit_of_a_container_limits_the_memory(files, limit, stat, expected):
    files |= {"/proc/meminfo": MEMINFO, CGROUP + "memory.max": limit, CGROUP + "memory.current": "3000000000"}
    files[CGROUP + "memory.stat"] = stat
    assert available_bytes() == expected


def test_where_the_system_tells_nothing_memory_is_all_there_is(files):
    assert available_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_processor_is_named_by_its_model(files):
    files["/proc/cpuinfo"] = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A Processor @ 2.00GHz: fast\nflags\t: a b\n"
    assert cpu_name() == "A Processor @ 2.00GHz: fast"


@pytest.mark.parametrize(("variable", "names"), [("", []), ("1", ["1"]), ("0,GPU-8a", ["0", "GPU-8a"])])
def test_gpus_are_those_that_the_environment_shows(monkeypatch, variable, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == names


def test_only_visible_gpus_are_asked(monkeypatch, tmp_path):
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\necho "$@"\necho second\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert query_gpus("memory.free") == ["--query-gpu=memory.free --format=csv,noheader,nounits --id=1,3", "second"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert query_gpus("name")[0] == "--query-gpu=name --format=csv,noheader,nounits"


def test_without_nvidia_smi_there_are_no_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert query_gpus("name") == []


def test_what_fails_prints_nothing():
    assert output_of("sh", "-c", "echo words") == "words"
    assert output_of("sh", "-c", "echo words; exit 3") == ""
    assert output_of("no-such-command") == ""


def test_a_process_has_one_start_until_it_is_gone():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = process_started(process.pid)
    assert started
    assert started == process_started(process.pid) != process_started(os.getpid())
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_started(process.pid) is None  # a zombie
    process.wait()
    assert process_started(process.pid) is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_processes_of_one_machine_share_a_space():
    program = "from archlab.machine import process_space; print(process_space())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert other.strip() == process_space()
    assert "pid:[" in process_space()


def test_ceilings_are_the_best_of_several_times():
    ticks = iter([0.0, 9.0] + [0.0, 0.5, 0.0, 0.25] * 20)
    found = ceilings("cpu", clock=lambda: next(ticks))
    assert found == Ceilings(2 * 1024**3 / 0.25, 2 * (64 << 20) / 0.25)


def test_one_thread_is_used_and_given_back():
    import torch

    before = torch.get_num_threads()
    with single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before

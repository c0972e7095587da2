"""What is known about the machine and the software: recorded with every run, because numbers without it mean nothing.

Nothing here imports torch: versions come from package metadata, accelerators from NVML. What only a loaded torch can
tell (threads, devices it uses) is part of a launch's `LoadReport`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_LIBRARIES = ("accelerate", "instruct-harness", "pandas", "safetensors", "tokenizers", "torch", "transformers")
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTORCH_CUDA_ALLOC_CONF",
)
"""What changes speed from outside the program."""


def environment() -> dict[str, Any]:
    """Everything that may explain a difference between two runs; None where it cannot be known."""
    gpus, driver = _accelerators()
    return {
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "host": platform.node(),
        "cpu": _cpu_name(),
        "cpu_cores": psutil.cpu_count(logical=False),
        "cpu_threads": psutil.cpu_count(),
        "cpus_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpus": gpus,
        "gpu_driver": driver,
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def _accelerators() -> tuple[list[dict[str, Any]], str | None]:
    """Name, UUID and memory of every NVIDIA GPU, and the driver's version; nothing where there is no driver."""
    import pynvml

    def ask(question: Callable[..., Any], *about: Any) -> Any:
        try:
            return question(*about)
        except pynvml.NVMLError:  # not every GPU answers every question
            return None

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no GPU: a machine like any other
        return [], None
    try:
        gpus = []
        for index in range(ask(pynvml.nvmlDeviceGetCount) or 0):
            handle = ask(pynvml.nvmlDeviceGetHandleByIndex, index)
            memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
            gpus.append(
                {
                    "name": ask(pynvml.nvmlDeviceGetName, handle),
                    "uuid": ask(pynvml.nvmlDeviceGetUUID, handle),
                    "memory_bytes": None if memory is None else int(memory.total),
                }
            )
        return gpus, ask(pynvml.nvmlSystemGetDriverVersion)
    finally:
        pynvml.nvmlShutdown()


def _git_commit() -> str | None:
    """The commit of the directory the command runs in, with `+` where the tree differs from it."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> str | None:
        answer = subprocess.run([git, *words], capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")

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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from harness.meters.accelerators import installed, open_nvml
from harness.meters.processors import allowed_processors

_LIBRARIES = ("accelerate", "pandas", "safetensors", "tokenizers", "torch", "transformers")
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
    gpus, driver = installed(open_nvml())
    around = interpreter()
    return {
        "os": platform.platform(),
        "host": platform.node(),
        "cpu": cpu_name(),
        "cpu_cores": psutil.cpu_count(logical=False),
        "cpu_threads": psutil.cpu_count(),
        "cpus_allowed": None if (allowed := allowed_processors()) is None else len(allowed),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpus": gpus,
        "gpu_driver": driver,
        "python": around["python"],
        "libraries": {**around["libraries"], "instruct-harness": _version("instruct-harness")},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "git_commit": _git_commit(),
    }


def interpreter() -> dict[str, Any]:
    """The versions of this Python and of the libraries that it imports; None for one that is not installed. Without
    this harness: a worker's is that of its parent, whatever its interpreter has."""
    return {"python": sys.version.split()[0], "libraries": {name: _version(name) for name in _LIBRARIES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str | None:
    """The processor as it calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


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

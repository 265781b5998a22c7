"""Limits: cores and memory that this process may use, as the machine and its control groups leave them.

`root` stands for "/", so that a test can lay out another /proc and /sys.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path


def model_of(root: Path) -> str | None:
    """The processor's name as Linux gives it."""
    info = text_of(root / "proc/cpuinfo")
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", info or "", re.MULTILINE)
    return found[1].strip() if found else None


def usable(root: Path = Path("/")) -> float:
    """Cores that this process may use: its affinity, and the quota of its control groups (version 1 or 2)."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in groups(root, "cpu"):
        words = (text_of(folder / "cpu.max") or "").split()
        if not words:
            words = [text_of(folder / "cpu.cfs_quota_us") or "", text_of(folder / "cpu.cfs_period_us") or ""]
        quota, period = (number(word) for word in (*words, "", "")[:2])
        if quota and period and quota > 0:
            cores = min(cores, quota / period)
    return round(cores, 2)


def groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups that rule a controller, from its own up to the topmost."""
    for line in (text_of(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        home = root / "sys/fs/cgroup"
        if controllers and controller not in controllers.split(","):
            continue
        home = home / controller if controllers else home
        own = home / path.strip().lstrip("/")
        yield own
        for above in own.parents if own != home else ():
            yield above
            if above == home:
                break


def sizes(root: Path = Path("/")) -> tuple[float | None, float | None]:
    """(total, free) bytes; None where they cannot be known."""
    info = dict(re.findall(r"^(\w+):\s+(\d+) kB", text_of(root / "proc/meminfo") or "", re.MULTILINE))
    total, free = (float(info[name]) * 1024 if name in info else None for name in ("MemTotal", "MemAvailable"))
    if total is None:
        try:
            import psutil
            total, free = float(psutil.virtual_memory().total), float(psutil.virtual_memory().available)
        except ImportError:
            total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else None
    for folder in groups(root, "memory"):
        limit = number(text_of(folder / "memory.max") or text_of(folder / "memory.limit_in_bytes"))
        used = number(text_of(folder / "memory.current") or text_of(folder / "memory.usage_in_bytes"))
        cached = re.search(r"^(?:total_)?inactive_file (\d+)$", text_of(folder / "memory.stat") or "", re.MULTILINE)
        if limit and (total is None or limit < total):
            total = limit
            if used is not None:
                free = min(math.inf if free is None else free, limit - used + (int(cached[1]) if cached else 0))
    return total, free


def text_of(path: Path) -> str | None:
    """What a small file says; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(text: str | None) -> float | None:
    """A number; None for "max" and for nothing."""
    try:
        return float(text) if text else None
    except ValueError:
        return None

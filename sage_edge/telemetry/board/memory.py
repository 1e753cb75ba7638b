"""How much memory this process may still take."""

from __future__ import annotations

import re
from pathlib import Path

from sage_edge.telemetry.board.files import read_int, read_text

#: Where control groups are, how a line of /proc/self/cgroup names this process's own, limit and use: of
#: version 2, of the two versions mixed, and of version 1.
_GROUPS = (
    ("sys/fs/cgroup", r"^0::/(.*)$", "memory.max", "memory.current"),
    ("sys/fs/cgroup/unified", r"^0::/(.*)$", "memory.max", "memory.current"),
    ("sys/fs/cgroup/memory", r"^\d+:memory:/(.*)$", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def meminfo(root: Path) -> dict[str, int]:
    """Bytes by field of /proc/meminfo."""
    text = read_text(root / "proc/meminfo") or ""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}


def resident_bytes() -> int:
    """What this process has in memory now.

    Raises:
        OSError: The kernel does not tell.
    """
    status = read_text(Path("/proc/self/status")) or ""
    if match := re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE):
        return int(match[1]) * 1024
    raise OSError("/proc/self/status does not tell VmRSS")


def available_bytes(root: Path = Path("/")) -> int | None:
    """What the machine, and the limits of its control groups, leave free; None where neither tells."""
    mine = read_text(root / "proc/self/cgroup") or ""
    free = [meminfo(root).get("MemAvailable")]
    for groups, line, limit, usage in _GROUPS:
        found = re.search(line, mine, re.MULTILINE)
        folder = root / groups / (found[1] if found else "")
        # A container sees its own group as the topmost; elsewhere those above have limits too.
        for group in {folder, *folder.parents} - {*(root / groups).parents}:
            free.append(_group_bytes(group, limit, usage))
    return min((value for value in free if value is not None), default=None)


def _group_bytes(folder: Path, limit: str, usage: str) -> int | None:
    """What a control group may still take; pages that only cache files make way."""
    most, used = read_int(folder / limit), read_int(folder / usage)
    if most is None or used is None:
        return None
    cached = re.findall(
        r"^(?:total_)?inactive_file (\d+)$", read_text(folder / "memory.stat") or "", re.MULTILINE
    )
    return max(0, most - used + int(cached[-1] if cached else 0))

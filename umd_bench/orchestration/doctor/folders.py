"""Are the results and data folders fit to work in: written, with room and quota, and kept from two processes at once?

Locks, hard links and renames are what keeps two processes from spoiling one stage. Whether they do so between machines is a
property of the file system's type and of how it was mounted, which /proc/mounts tells; a job on a node can prove it
(:mod:`~umd_bench.orchestration.doctor.node_probe`).
"""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from umd_bench.config.errors import UserError
from umd_bench.orchestration.commands import run_command
from umd_bench.orchestration.doctor.finding import Finding, Level
from umd_bench.store.files import link_new, require_writable, write_atomic

LOW_DISK_BYTES = 5 * 10**9
LOW_FILES = 50_000  # a stage writes about twenty
NEAR_QUOTA = 0.9  # of the limit
QUOTA_SECONDS = 10.0
MOUNTS = Path("/proc/mounts")
# File systems that machines share, and those that one machine has for itself; what is in neither list is not known here.
SHARED = frozenset(
    {
        *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "cifs", "smb3"),
        *("gfs2", "ocfs2", "pvfs2", "orangefs", "panfs", "wekafs", "afs", "fuse.juicefs", "fuse.sshfs"),
    }
)
LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "overlay", "f2fs", "apfs", "fuse.overlayfs"}
)


@dataclass(frozen=True)
class Mount:
    """Where a folder's file system is mounted, from what device, and how."""

    device: str
    point: Path
    type: str
    options: frozenset[str]

    @property
    def local_locks(self) -> str | None:
        """The property by which a lock taken here holds on this machine alone; None where there is none such."""
        if self.type in ("nfs", "nfs4"):
            named = {"nolock", "local_lock=all", "local_lock=flock"} & self.options
            return f"mounted with {', '.join(sorted(named))}" if named else None
        if self.type == "lustre":
            return None if "flock" in self.options else "mounted without flock"
        return "sshfs has no locks" if self.type == "fuse.sshfs" else None


def mount_of(folder: Path) -> Mount | None:
    """The mount that a folder is on; None where this system does not say (it is not Linux)."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return None
    path, found = folder.resolve(), None
    for line in lines:
        device, point, kind, options = (part.replace("\\040", " ") for part in line.split()[:4])
        if path.is_relative_to(point) and (found is None or len(point) >= len(str(found.point))):  # a later one hides it
            found = Mount(device, Path(point), kind, frozenset(options.split(",")))
    return found


def examine_folder(folder: Path, what: str) -> Iterator[Finding]:
    """Can it be written, and is there room: bytes, files and the user's quota."""
    try:
        require_writable(folder, what)
    except UserError as error:
        yield Finding("fail", str(error))
        return
    free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
    few = files.f_files > 0 and files.f_favail < LOW_FILES  # some file systems do not count files, and say 0
    text = f"{what} {folder} can be written, {free / 1e9:.0f} GB free" + (f", {files.f_favail:,} files more" if few else "")
    level: Level = "pass" if free > LOW_DISK_BYTES and not few else "warn"
    yield Finding(level, text, "" if level == "pass" else "free some, or give another folder")
    yield from _quota(folder, what)


def examine_locks(results: Path) -> Iterator[Finding]:
    """Do locks, links and renames work, as two processes of this machine see them?"""
    try:
        with tempfile.TemporaryDirectory(dir=results) as name:
            folder = Path(name)
            write_atomic(folder / "a", b"1")
            first, second = link_new(folder / "a", folder / "b"), link_new(folder / "a", folder / "b")
            with filelock.FileLock(folder / "lock"):
                try:
                    filelock.FileLock(folder / "lock", is_singleton=False).acquire(blocking=False)
                    locks = False
                except filelock.Timeout:
                    locks = True
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        yield Finding("fail", f"the file system of {results} lacks rename, link or lock ({why})", "use a local folder")
        return
    if first and not second and locks:
        yield Finding("pass", "locks, links and renames work there")
    else:
        yield Finding("fail", f"locks or links do not exclude each other in {results}", "use a folder on another file system")


def examine_sharing(folder: Path, what: str, *, locks: bool, asked: bool) -> Iterator[Finding]:
    """Do nodes share the folder, and where ``locks`` are needed, do these hold between machines? ``asked``: for jobs on a
    cluster, which will fail where they do not."""
    mount = mount_of(folder)
    if mount is None:
        yield Finding("warn", f"the file system of {what} is not known", "it must be one that the nodes share")
        return
    where = f"{what} is on {mount.type} ({mount.device} at {mount.point})"
    if locks and mount.local_locks is not None:
        remedy = "have it mounted with locks (NFS: without nolock and local_lock; Lustre: flock), or use another folder"
        text = f"{where}, {mount.local_locks}: a lock holds on one machine only, so two jobs could work on one stage"
        yield Finding("fail" if asked else "warn", text, remedy)
    elif mount.type in SHARED:
        yield Finding("pass", f"{where}, which machines share")
    else:
        known = "which is this machine's own" if mount.type in LOCAL else "and whether nodes share it is not known"
        yield Finding("warn" if asked else "pass", f"{where}, {known}", "--probe-node asks a node" if asked else "")


def _quota(folder: Path, what: str) -> Iterator[Finding]:
    """The user's quota on the folder's file system, where one is set and something here can tell."""
    mount = mount_of(folder)
    if mount is None:
        return
    command = ["lfs", "quota", "-q", "-u", getpass.getuser(), str(mount.point)] if mount.type == "lustre" else ["quota", "-wp"]
    if shutil.which(command[0]) is None:
        return
    said = run_command(*command, seconds=QUOTA_SECONDS)
    if said is None:
        yield Finding("warn", f"`{' '.join(command)}` did not answer within {QUOTA_SECONDS:.0f} s: your quota is not known")
        return
    for words in map(str.split, said.stdout.splitlines()):
        # file system, then used, soft limit, hard limit, grace; of blocks (KiB) and of files
        if len(words) < 8 or words[0] not in (mount.device, str(mount.point)):
            continue
        for name, (used, soft, hard) in {"KiB": words[1:4], "files": words[5:8]}.items():
            counts = [int(word.rstrip("*")) for word in (used, soft, hard) if word.rstrip("*").isdigit()]
            limits = [limit for limit in counts[1:] if limit]
            if len(counts) == 3 and limits:
                text = f"quota of {what}: {counts[0]:,} of {min(limits):,} {name} used"
                full = counts[0] >= NEAR_QUOTA * min(limits)
                yield Finding(
                    "warn" if full else "pass", text, "remove what is not needed, or give another folder" if full else ""
                )

"""Checks the results and data folders: are they writable, is there space and quota, and do locks work?

Locks, hard links and renames keep two processes from working on one stage. Whether they work between machines depends on the
type of the file system and its mount options, which are read from /proc/mounts. Only a job on a node can prove that they work
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
LOW_FILES = 50_000  # a stage writes about 20 files
NEAR_QUOTA = 0.9  # of the limit
QUOTA_SECONDS = 10.0
MOUNTS = Path("/proc/mounts")
# Types of file systems that machines share, and types that belong to one machine. Any other type may be either.
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
    """A line of /proc/mounts: device, mount point, file system type and options."""

    device: str
    point: Path
    type: str
    options: frozenset[str]

    @property
    def local_locks(self) -> str | None:
        """Why locks on this mount hold on one machine only; None if the mount options do not say so."""
        if self.type in ("nfs", "nfs4"):
            named = {"nolock", "local_lock=all", "local_lock=flock"} & self.options
            return f"mounted with {', '.join(sorted(named))}" if named else None
        if self.type == "lustre":
            return None if "flock" in self.options else "mounted without flock"
        return "sshfs has no locks" if self.type == "fuse.sshfs" else None


def mount_of(folder: Path) -> Mount | None:
    """The mount that holds the folder; None on systems without /proc/mounts."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return None
    path, mount = folder.resolve(), None
    for line in lines:
        device, point, kind, options = (part.replace("\\040", " ") for part in line.split()[:4])
        # If several mounts have the same point, the last one counts.
        if path.is_relative_to(point) and (mount is None or len(point) >= len(str(mount.point))):
            mount = Mount(device, Path(point), kind, frozenset(options.split(",")))
    return mount


def examine_folder(folder: Path, label: str) -> Iterator[Finding]:
    """Is the folder writable, and do free space, free files and the user's quota suffice? ``label`` names it in findings."""
    try:
        require_writable(folder, label)
    except UserError as error:
        yield Finding("fail", str(error))
        return
    free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
    few = files.f_files > 0 and files.f_favail < LOW_FILES  # f_files is 0 on file systems without a limit
    text = f"{label} {folder} is writable, {free / 1e9:.0f} GB free" + (
        f", room for {files.f_favail:,} more files" if few else ""
    )
    level: Level = "pass" if free > LOW_DISK_BYTES and not few else "warn"
    yield Finding(level, text, "" if level == "pass" else "free some space, or use another folder")
    yield from _quota(folder, label)


def examine_locks(results: Path) -> Iterator[Finding]:
    """Do locks, hard links and renames work between processes on this machine?"""
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
        yield Finding("pass", "locks, links and renames work in the results folder")
    else:
        text = f"two processes can hold one lock or link to one name in {results}"
        yield Finding("fail", text, "use a folder on another file system")


def examine_sharing(folder: Path, label: str, *, locks: bool, required: bool) -> Iterator[Finding]:
    """Do several machines share the folder and, if ``locks`` are needed, do locks hold between them?

    ``required`` says that jobs on a cluster depend on both. Then locks that hold on one machine only are a failure instead of a
    warning, and a folder that the machines may not share is a warning instead of a pass. ``label`` names the folder in the
    findings.
    """
    mount = mount_of(folder)
    if mount is None:
        yield Finding("warn", f"the type of file system of {label} is unknown", "it must be one that the nodes share")
        return
    where = f"{label} is on {mount.type} ({mount.device} at {mount.point})"
    if locks and mount.local_locks is not None:
        remedy = "have it mounted with locks (NFS: without nolock and local_lock; Lustre: flock), or use another folder"
        text = f"{where}, {mount.local_locks}: a lock holds on one machine only, so two jobs could work on one stage"
        yield Finding("fail" if required else "warn", text, remedy)
    elif mount.type in SHARED:
        yield Finding("pass", f"{where}, which machines share")
    else:
        shared = "which only this machine sees" if mount.type in LOCAL else "and it is unknown whether nodes share it"
        remedy = "--probe-node checks it from a node" if required else ""
        yield Finding("warn" if required else "pass", f"{where}, {shared}", remedy)


def _quota(folder: Path, label: str) -> Iterator[Finding]:
    """The user's quota on the folder's file system; no finding if none is set or there is no quota command."""
    mount = mount_of(folder)
    if mount is None:
        return
    command = ["lfs", "quota", "-q", "-u", getpass.getuser(), str(mount.point)] if mount.type == "lustre" else ["quota", "-wp"]
    if shutil.which(command[0]) is None:
        return
    result = run_command(*command, seconds=QUOTA_SECONDS)
    if result is None:
        yield Finding("warn", f"`{' '.join(command)}` did not answer within {QUOTA_SECONDS:.0f} s: your quota is unknown")
        return
    for fields in map(str.split, result.stdout.splitlines()):
        # file system; used, soft limit, hard limit and grace of blocks (KiB); the same four of files
        if len(fields) < 8 or fields[0] not in (mount.device, str(mount.point)):
            continue
        for name, (used, soft, hard) in {"KiB": fields[1:4], "files": fields[5:8]}.items():
            counts = [int(text.rstrip("*")) for text in (used, soft, hard) if text.rstrip("*").isdigit()]
            limits = [limit for limit in counts[1:] if limit]
            if len(counts) == 3 and limits:
                text = f"quota of {label}: {counts[0]:,} of {min(limits):,} {name} used"
                full = counts[0] >= NEAR_QUOTA * min(limits)
                remedy = "remove files, or use another folder" if full else ""
                yield Finding("warn" if full else "pass", text, remedy)

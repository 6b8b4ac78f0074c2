"""Folders: a file system without locks between machines fails if jobs need the locks, and a nearly full quota warns."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.orchestration.doctor import folders
from umd_bench.orchestration.doctor.folders import examine_sharing, mount_of

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw,vers=4.2,local_lock=none 0 0
server:/old /old nfs rw,vers=3,nolock 0 0
a@tcp:/scratch /scratch lustre rw 0 0
b@tcp:/work /work\\040space lustre rw,flock 0 0
thing /mnt/odd oddfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(folders, "MOUNTS", tmp_path / "mounts")


@pytest.mark.parametrize(
    ("folder", "level", "text"),
    [
        ("/home/me/results", "pass", "machines share"),
        ("/old/results", "fail", "mounted with nolock"),
        ("/scratch/results", "fail", "without flock"),
        ("/work space/results", "pass", "machines share"),
        ("/srv/results", "warn", "only this machine sees"),
        ("/mnt/odd", "warn", "unknown"),
    ],
)
@pytest.mark.usefixtures("mounts")
def test_a_file_system_without_locks_between_machines_fails_if_jobs_need_the_locks(folder: str, level: str, text: str) -> None:
    [finding] = examine_sharing(Path(folder), "the results folder", locks=True, required=True)
    assert (finding.level, text in finding.text) == (level, True)
    [not_required] = examine_sharing(Path(folder), "the results folder", locks=True, required=False)
    assert not_required.level != "fail"
    [data] = examine_sharing(Path(folder), "the data folder", locks=False, required=True)
    assert data.level != "fail", "jobs only read the data folder"


def test_a_folder_is_on_the_mount_of_its_closest_parent_and_not_on_one_that_shares_a_prefix(mounts: None) -> None:
    mount = mount_of(Path("/homeless"))
    assert mount is not None
    assert mount.point == Path("/")


def test_a_quota_that_is_nearly_full_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = mount_of(tmp_path)
    assert mount is not None
    (tmp_path / "quota").write_text(
        f"#!/bin/sh\necho 'Disk quotas for user me (uid 1):'\necho '{mount.device} 95 0 100 0 5 0 0 0'\n"
        "echo 'other:/x 200* 100 100 0 5* 1 1 0'\nexit 1\n"
    )
    (tmp_path / "quota").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [finding] = [each for each in folders.examine_folder(tmp_path, "the results folder") if each.text.startswith("quota")]
    assert (finding.level, "95 of 100 KiB" in finding.text) == ("warn", True)

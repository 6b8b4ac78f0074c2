"""The wheel works without the repository: shipped sweeps by name, their tables and the paper's items, from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TINY = (
    "seeds=[0]",
    "axes.stages.pretrain.corruption.mask_ratio=[0.375]",
    "trial.model={width: 16, depth: 1, decoder_depth: 1, heads: 2}",
    "trial.stages.pretrain={nimg: 320, batch: 64}",
    "trial.stages.finetune={nimg: 128, batch: 64}",
    "trial.stages.generate={n: 20, steps: 2}",
)


class Installation:
    """A virtual environment with the wheel, and an empty folder to run commands in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir()
        self._bin = folder / "venv" / "bin"
        data = {"UMD_BENCH_DATA": str(folder / "data")}
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | data

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._bin / program), *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=240, check=False
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("umd_bench-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = str(folder / "venv" / "bin" / "python")
    install = [*pip, "--python", python, "install", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run(install, check=True, cwd=folder)
    # The libraries come from this test's environment. A path from a .pth file is searched last, and the .pth files in that
    # path's folder, such as the one of an editable install, are ignored.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")
    return Installation(folder)


@pytest.fixture(scope="module")
def finished(installed: Installation) -> Installation:
    sets = [word for field in TINY for word in ("--set", field)]
    done = installed.run("umd-bench", "sweep", "mask_ratio", "--on", "inline", "--mlflow", "off", *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 trials, 6 stages, 0 reused" in done.stdout
    return installed


def test_the_code_is_the_wheels_and_not_the_repositorys(installed: Installation) -> None:
    where = "import analysis, umd_bench, sys; print(umd_bench.__file__, analysis.__file__); print(sys.path)"
    shown = installed.run("python", "-c", where)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count(str(installed.folder.parent / "venv")) >= 2
    assert str(ROOT) not in shown.stdout.replace(sysconfig.get_path("purelib"), "").replace(sysconfig.get_path("platlib"), "")


def test_shipped_sweeps_are_listed_and_planned(installed: Installation) -> None:
    listed = installed.run("umd-bench", "sweep", "--list")
    assert listed.returncode == 0, listed.stderr
    for path in (ROOT / "sweeps").glob("*.yaml"):
        assert path.stem in listed.stdout
    planned = installed.run("umd-bench", "plan", "mask_ratio")
    assert planned.returncode == 0, planned.stderr
    assert "108 stages: 108 new" in planned.stdout
    assert installed.run("umd-bench", "plan", "nowhere").returncode == 2


def test_a_sweep_by_name_gives_its_table(finished: Installation) -> None:
    shown = finished.run("umd-bench", "table", "mask_ratio")
    assert shown.returncode == 0, shown.stderr
    assert "0.375" in shown.stdout
    assert (finished.folder / "results/sweeps/mask_ratio/table.md").is_file()


@pytest.mark.parametrize("command", [("umd-bench", "paper"), ("python", "-m", "analysis")])
def test_the_papers_items_are_made(finished: Installation, command: tuple[str, ...], tmp_path: Path) -> None:
    made = finished.run(*command, "--out", str(tmp_path))
    assert made.returncode == 0, made.stderr
    assert f"mask_ratio: {tmp_path / 'mask_ratio'}\n" in made.stdout
    assert "`umd-bench sweep r_t0` makes them" in made.stdout
    assert (tmp_path / "mask_ratio/figure.png").is_file()


def test_published_numbers_are_in_the_wheel(installed: Installation) -> None:
    read = "from analysis.published import load; print(load('imagenet64').rows[0].numbers['fid'])"
    assert installed.run("python", "-c", read).stdout == "19.8\n"

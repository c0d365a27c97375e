"""What a stranger meets first: one list of packages, one door, and sentences when something is in the way.

The set-up runs in a copy of the checkout with a make-believe Python, so nothing is installed here.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tsfm_lib import paths

ROOT = paths.ROOT
WANTED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS = ("run", "test", "nbval", "setup", "lab", "train", "bench", "book")
OPTIONS = ("--profile", "--only", "--jobs", "--timeout", "--resume", "--update", "--online", "--help")


# ---- one list of packages --------------------------------------------------------------------------------------------

def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_environment_yml_holds_exactly_the_list_of_pyproject():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert dependencies[:2] == [f"python{WANTED['requires-python']}", "pip"]
    assert dependencies[2:] == [{"pip": WANTED["dependencies"]}]


def test_the_lock_satisfies_pyproject_and_covers_every_name():
    lock = {canonicalize_name(name): version for name, version in locked().items()}
    for requirement in map(Requirement, WANTED["dependencies"]):
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)]), requirement


def test_the_lock_is_closed_under_requirements():
    lock = {canonicalize_name(name) for name in locked()}
    for name in lock:
        for requirement in map(Requirement, metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in lock or sys.platform != "linux" or name == "torch", (name, str(requirement))


def test_the_lock_fits_every_python_that_is_promised():
    for name, version in locked().items():
        about = metadata.metadata(name)
        if about["Version"] == version:
            for python in ("3.11.0", "3.12.0", "3.13.0"):
                assert SpecifierSet(about["Requires-Python"] or "").contains(python), f"{name} {version} on {python}"


def test_the_lock_names_versions_only():
    text = (ROOT / "requirements.lock").read_text()
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line), line
    assert locked()["torch"] == "2.13.0"


def test_the_lines_in_readme_print_what_it_shows(capsys):
    first, shown = re.search(r"```python\n(.*?)```\s*```\n(.*?)```", (ROOT / "README.md").read_text(), re.S).groups()
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip("\n") == shown.strip("\n")


# ---- the door --------------------------------------------------------------------------------------------------------

def test_help_needs_no_environment_and_names_every_command_and_option():
    done = subprocess.run([str(ROOT / "run_all.sh"), "--help"], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0
    for word in COMMANDS:
        assert re.search(rf"^  {word}\b", done.stdout, re.M), word
    for word in OPTIONS:
        assert word in done.stdout


def test_the_door_is_plain_bash():
    for script in (ROOT / "run_all.sh", ROOT / ".ci" / "run"):
        assert script.stat().st_mode & stat.S_IXUSR, f"{script.name} is executable"
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
        for newer in ("declare -A", "local -n", "mapfile", "readarray", "&>>", "|&", ",,}", "^^}", "readlink -f", "sed -i", "grep -P"):
            assert newer not in script.read_text(), f"{newer} is not in macOS's bash 3.2 or its tools"


PYTHON = """#!/usr/bin/env bash
# make-believe Python: the real one answers questions, and making environments and installing is only written down
if [ "${1:-}" = -m ] && [ "${2:-}" = venv ]; then
  mkdir -p "$3/bin" && cp "$FAKE/python" "$3/bin/python" && echo "venv" >>"$FAKE/calls"
  exit 0
fi
if [ "${1:-}" = -m ] && [ "${2:-}" = pip ]; then
  [ "$3" = --version ] && exit 0
  shift 3; echo "pip $*" >>"$FAKE/calls"
  [ -f "$FAKE/says" ] && { cat "$FAKE/says"; exit 1; }
  exit 0
fi
if [ "${1:-}" = -c ] && [ -f "$FAKE/version" ]; then
  case "$2" in *print*version_info*) cat "$FAKE/version"; exit 0 ;; *"< (3, 11)"*) exit 1 ;; esac
fi
exec "$REAL" "$@"
"""
TOOLS = ("bash", "env", "cat", "cksum", "cp", "date", "dirname", "grep", "head", "ls", "mkdir", "rm", "sed", "tail", "tr")


class Stranger:
    """A copy of the checkout with a space in its path, an empty home, and only the tools every system has."""

    def __init__(self, place: Path):
        self.root, self.fake = place / "a checkout", place / "fake"
        (self.root / "notebooks").mkdir(parents=True)
        self.fake.mkdir()
        for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        tools = place / "bin"
        tools.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(shutil.which(name))
        (self.fake / "python").write_text(PYTHON)
        (self.fake / "python").chmod(0o755)
        self.tools, self.place = tools, place
        self.set_python("python3")

    def set_python(self, *names):
        for old in self.tools.glob("python*"):
            old.unlink()
        for name in names:
            shutil.copy(self.fake / "python", self.tools / name)

    def says(self, text):
        (self.fake / "says").write_text(text)

    def calls(self):
        """What was made and installed since the last question."""
        log = self.fake / "calls"
        found = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def __call__(self, *arguments, **variables):
        surroundings = {"PATH": str(self.tools), "HOME": str(self.place / "no home"), "FAKE": str(self.fake), "REAL": sys.executable,
                        "TSFM_MIN_FREE_MB": "0"} | variables
        command = [str(self.root / "run_all.sh"), *arguments]
        return subprocess.run(command, cwd=self.place, env=surroundings, capture_output=True, text=True, timeout=60)


@pytest.fixture
def stranger(tmp_path):
    return Stranger(tmp_path)


def refused(done, *words):
    """One sentence, and the words it must hold."""
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("run_all.sh: "), done.stderr
    for word in words:
        assert word in lines[0]


def test_set_up_makes_an_environment_once(stranger):
    done = stranger("setup")
    assert done.returncode == 0, done.stderr
    first = stranger.calls()
    assert first[0] == "venv" and [line.split()[0] for line in first[1:]] == ["pip", "pip"]
    assert "requirements.lock" in first[1] and "--no-deps" in first[2] and "-e" in first[2]
    again = stranger("setup")
    assert again.returncode == 0 and stranger.calls() == []


def test_a_changed_lock_is_installed_into_the_same_environment(stranger):
    stranger("setup"), stranger.calls()
    with (stranger.root / "requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    assert stranger("setup").returncode == 0
    assert [line.split()[0] for line in stranger.calls()] == ["pip", "pip"]
    assert stranger("setup").returncode == 0 and stranger.calls() == []


def test_a_moved_checkout_is_installed_again(stranger):
    stranger("setup"), stranger.calls()
    stranger.root = stranger.root.rename(stranger.place / "moved here")
    assert stranger("setup").returncode == 0
    assert any("moved here" in line for line in stranger.calls())


def test_a_half_made_environment_is_made_again(stranger):
    stranger.says("ERROR: interrupted")
    assert stranger("setup").returncode != 0
    (stranger.fake / "says").unlink()
    stranger.calls()
    done = stranger("setup")
    assert done.returncode == 0 and "half-made" in done.stdout
    assert stranger.calls()[0] == "venv"


def test_an_environment_whose_python_is_gone_is_made_again(stranger):
    stranger("setup"), stranger.calls()
    (stranger.root / ".venv" / "bin" / "python").unlink()
    assert stranger("setup").returncode == 0
    assert stranger.calls()[0] == "venv"


def test_torch_comes_first_from_the_index_that_was_named(stranger):
    assert stranger("setup", TORCH_INDEX="https://example.org/cpu").returncode == 0
    torch, rest, _ = stranger.calls()[1:]
    assert torch.endswith("--no-deps --index-url https://example.org/cpu torch==2.13.0") and "requirements.lock" in rest


def test_an_old_python_is_refused_in_one_sentence(stranger):
    (stranger.fake / "version").write_text("3.9\n")
    refused(stranger("setup"), "Python 3.11 or newer is needed", "python3 is 3.9", "PYTHON=")
    assert not (stranger.root / ".venv").exists()


def test_no_python_at_all_is_said_in_one_sentence(stranger):
    stranger.set_python()
    refused(stranger("setup"), "Python 3.11 or newer is needed and none was found")


def test_a_python_that_only_pretends_to_be_there_is_passed_over(stranger):
    shim = stranger.tools / "python3.13"
    shim.write_text("#!/usr/bin/env bash\necho 'python3.13: command not found' >&2; exit 127\n")
    shim.chmod(0o755)
    assert stranger("setup").returncode == 0


def test_the_named_python_is_the_only_one_tried(stranger):
    refused(stranger("setup", PYTHON=str(stranger.place / "not there")), "none was found at", "not there")


def test_a_nearly_full_disk_is_refused_before_anything_is_made(stranger):
    refused(stranger("setup", TSFM_MIN_FREE_MB="999999999"), "disk is nearly full", "999999999 MB are needed")
    assert not (stranger.root / ".venv").exists()


@pytest.mark.parametrize("says, words", [
    ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
     "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
     "ERROR: No matching distribution found for torch==2.13.0\n", ["no package index answered", "TORCH_INDEX"]),
    ("ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: 2.0.0)\n"
     "ERROR: No matching distribution found for torch==2.13.0\n", ["the package index has no torch==2.13.0", "Python 3"]),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", ["the disk is full"]),
    ("ERROR: a wheel is broken\n", ["installation failed: ERROR: a wheel is broken", "setup.log"]),
])
def test_what_pip_says_is_told_in_one_sentence(stranger, says, words):
    stranger.says(says)
    refused(stranger("setup"), *words)


@pytest.mark.parametrize("arguments, words", [
    (["rnu"], ["no command 'rnu'", "--help"]),
    (["--profil", "quick"], ["no option '--profil'"]),
    (["run", "--update-all"], ["no option '--update-all'"]),
    (["book", "10"], ["book takes no arguments"]),
    (["train"], ["name of a recipe"]),
])
def test_a_misspelt_command_is_refused_before_the_set_up(stranger, arguments, words):
    refused(stranger(*arguments), *words)
    assert stranger.calls() == []


def test_commands_run_offline_with_one_thread_and_leave_the_home_alone(stranger):
    stranger("setup")
    spy = stranger.root / ".venv" / "bin" / "python"
    spy.write_text('#!/usr/bin/env bash\n[ "${1:-}" = -c ] && exit 0\nenv\necho "arguments: $*"\n')
    done = stranger("--only", "00", PYTHONPATH="/elsewhere", MPLBACKEND="agg")
    told = done.stdout
    for line in ("HF_HUB_OFFLINE=1", "TSFM_OFFLINE=1", "OMP_NUM_THREADS=1", "PYTHONHASHSEED=0", "TQDM_DISABLE=1",
                 "PYDEVD_DISABLE_FILE_VALIDATION=1", "arguments: -P -m tsfm_lib.batch run --only 00"):
        assert line in told.splitlines()
    assert "PYTHONPATH=" not in told and "MPLBACKEND=" not in told
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        assert f"{name}={stranger.root}/.venv/" in told
    assert not (stranger.place / "no home").exists()
    online = stranger("--online", "--only", "00").stdout
    assert "HF_HUB_OFFLINE" not in online and "arguments: -P -m tsfm_lib.batch run --only 00" in online
    assert "no notebooks yet" in stranger("nbval").stdout
    train = stranger("train", "tiny", "--minutes", "3").stdout
    assert "arguments: -P -m tsfm_lib.train tiny --minutes 3" in train and "OMP_NUM_THREADS" not in train

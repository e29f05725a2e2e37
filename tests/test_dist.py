"""The wheel: built without a network, installed elsewhere, and used without the checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, sources = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("sources")
    # From a copy: builds leave files beside the sources, and several processes of tests may build at once.
    shutil.copytree(ROOT / "zeuxis", sources / "zeuxis", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, sources / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        ".",
    ]
    ended = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (built,) = folder.glob("zeuxis-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_that_the_package_reads(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "zeuxis"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(tracked) > 200
    assert not [name for name in tracked if name not in held], "a file of the package is missing from the wheel"


@pytest.mark.slow
def test_an_installed_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(site)}
        command = [sys.executable, "-m", "zeuxis", *arguments]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import zeuxis; print(zeuxis.__file__)"], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site)), "the wheel is used, and not the checkout"
    assert "mnist-vae-z2" in run("recipes")
    assert run("sample", "pretrained/digits-flow", "-n", "4").rstrip().endswith(".png")
    folder = run("train", "digits-vae", "--steps", "3").strip()
    assert Path(tmp_path, run("report", folder).strip()).stat().st_size > 10_000


@pytest.fixture(scope="module")
def empty(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs commands in an environment that has the wheel and its dependencies, and in a folder that has nothing."""
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("empty")
    # The network is open here, to pip, and to the commands, which must not need it.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ZEUXIS"))}
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / ("Scripts" if (environment / "Scripts").is_dir() else "bin") / "python"

    def pip(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [python, "-m", "pip", "--disable-pip-version-check", *words, "--constraint", ROOT / "constraints.txt"]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=folder)

    if pip("download", "--quiet", "--retries", "0", "--no-deps", "--dest", environment / "probe", "tomli-w").returncode:
        pytest.skip("the package index cannot be reached, so nothing can be installed into an empty environment")
    installed = pip("install", "--quiet", wheel)
    assert installed.returncode == 0, installed.stderr

    (folder / "shards.parquet").write_bytes(b"PAR1")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        caches = {f"ZEUXIS_{name}": str(folder / name.lower()) for name in ("CACHE", "DATA", "STATE")}
        command = [python.with_name("zeuxis"), *words]
        return subprocess.run(
            command, env=variables | caches, cwd=folder, capture_output=True, text=True, check=False, timeout=1800
        )

    yield run
    shutil.rmtree(environment)  # a gigabyte


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(empty: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for words, told in [
        (["--version"], f"zeuxis {version}"),
        (["demo", "--minutes", "0.5"], "report.html"),
        (["sample", "pretrained/digits-flow", "-n", "4"], ".png"),
        (["export", "pretrained/digits-vae", "--to", "safetensors"], "pretrained-digits-vae"),
    ]:
        ended = empty(*words)
        assert ended.returncode == 0, f"{words}: {ended.stderr}"
        assert told in ended.stdout.splitlines()[-1], words


# Commands by the extra that they want.
WANTING = {
    "film": ["interpolate", "pretrained/digits-vae", "--through", "3,8,1", "--film", "way.mp4"],
    "hf": ["train", "digits-vae", "--data", "hf:somebody/some-images"],
    "hub": ["push", "pretrained/digits-vae", "somebody/digits"],
    "inception": ["evaluate", "pretrained/digits-vae", "--judge", "inception"],
    "judge": ["evaluate", "pretrained/digits-vae", "--judge", "efficientnet"],
    "mlflow": ["train", "digits-vae", "--steps", "2", "--track", "mlflow"],
    "onnx": ["export", "pretrained/digits-vae", "--to", "onnx"],
    "ray": ["sweep", "digits-vae", "--over", "model.latent=2,4", "--on", "ray", "--steps", "2"],
    "search": ["sweep", "digits-vae", "--over", "model.latent=2..4", "--search", "tpe", "--steps", "2"],
    "serve": ["serve", "pretrained/digits-vae"],
    "shards": ["train", "digits-vae", "--data", "shards.parquet"],
    "studio": ["studio"],
    "tensorboard": ["train", "digits-vae", "--steps", "2", "--track", "tensorboard"],
    "timm": ["evaluate", "pretrained/digits-vae", "--judge", "timm:resnet18"],
    "wandb": ["train", "digits-vae", "--steps", "2", "--track", "wandb"],
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", WANTING)
def test_a_missing_extra_is_named_with_its_install_command(
    extra: str, empty: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    ended = empty(*WANTING[extra])
    assert ended.returncode == 2, ended.stderr
    assert f"zeuxis[{extra}]" in ended.stderr and "pip install" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_extra_has_a_command_that_wants_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(WANTING) == set(project["optional-dependencies"]) - {"course", "dev", "docs"}


def test_every_import_is_declared() -> None:
    """A dependency that is only missing from pyproject.toml is found here: everything is installed where tests run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    names = [*project["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in names}  # type: ignore[index]
    belongs = packages_distributions()
    for path in (ROOT / "zeuxis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported = [node.module]
            else:
                continue
            for module in imported:
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top == "zeuxis":
                    continue
                found = {name.lower().replace("_", "-") for name in belongs.get(top, [top])}
                assert found & declared, f"{path.relative_to(ROOT)} imports {top}, which pyproject.toml does not name"

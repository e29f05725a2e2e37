"""Samples in a folder, for tools that read folders: complete, resumable, the same bytes every time."""

from __future__ import annotations

import json
import os
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zeuxis import cli
from zeuxis.errors import UserError
from zeuxis.figures import export
from zeuxis.figures.export import save_samples, write_zip
from zeuxis.files import TEMPORARY, WriteError
from zeuxis.run import Batches, Run

N = 600


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder and below, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the batches that are made."""
    numbers: list[int] = []
    make = Batches.__getitem__
    monkeypatch.setattr(Batches, "__getitem__", lambda self, i: numbers.append(i) or make(self, i))
    return numbers


def killed_while_writing(run: Run, folder: Path, after: int) -> None:
    """Saves samples in a process that is killed in the middle of a picture."""
    process = os.fork()
    if process == 0:
        write, count = export.write_one_of_many, 0

        def watched(path: Path, picture: bytes) -> None:
            nonlocal count
            count += 1
            if count > after:
                path.with_name(TEMPORARY + path.name).write_bytes(picture[: len(picture) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, picture)

        export.write_one_of_many, export.WRITERS = watched, 1
        try:
            save_samples(run, N, folder, seed=3)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which this system cannot")
def test_a_killed_call_continues_with_what_is_missing(trained: dict[str, Run], tmp_path: Path, made: list[int]) -> None:
    run = trained["vae"]
    save_samples(run, N, tmp_path / "whole", seed=3)
    assert made == [0, 1, 2]
    killed_while_writing(run, tmp_path / "killed", after=300)
    there = content(tmp_path / "killed")
    assert len([name for name in there if not name.startswith(TEMPORARY)]) == 300
    assert all(picture.endswith(export.END) for name, picture in there.items() if not name.startswith(TEMPORARY))
    made.clear()
    save_samples(run, N, tmp_path / "killed", seed=3)
    assert made == [1, 2], "the first batch was complete"
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert (tmp_path / "killed-grid.png").read_bytes() == (tmp_path / "whole-grid.png").read_bytes()


def test_only_pictures_of_the_same_samples_are_kept(trained: dict[str, Run], tmp_path: Path, made: list[int]) -> None:
    run, folder = trained["vae"], tmp_path / "made"
    save_samples(run, 300, folder)
    whole = content(folder)
    record = json.loads((tmp_path / "made-samples.json").read_text())
    assert (record["weights"], record["images"], record["seed"]) == (run.weights, 300, 1)
    (folder / "0299.png").write_bytes(whole["0299.png"][:-9])  # as a power failure may leave it
    (folder / "0007.png").unlink()
    made.clear()
    save_samples(run, 300, folder)
    assert made == [0, 1] and content(folder) == whole
    made.clear()
    save_samples(run, 300, folder)
    assert not made, "all are there"
    for other, options in ((run, {"seed": 2}), (run, {"scale": 0.5}), (trained["gan"], {})):
        save_samples(other, 300, folder, **options)
        assert len(content(folder)) == 300 and not content(folder).items() & whole.items()
    save_samples(run, 300, folder)
    assert content(folder) == whole


def test_each_class_has_its_folder(trained: dict[str, Run], tmp_path: Path, made: list[int]) -> None:
    run = trained["cgan"]
    save_samples(run, 25, tmp_path / "flat")
    flat = content(tmp_path / "flat")
    save_samples(run, 25, tmp_path / "made", per_class=True)
    assert content(tmp_path / "made") == {f"{int(name[:4]) % 10}/{name}": picture for name, picture in flat.items()}
    (tmp_path / "made" / "3" / "0003.png").unlink()
    made.clear()
    save_samples(run, 25, tmp_path / "made", per_class=True)
    assert made == [0] and len(content(tmp_path / "made")) == 25
    save_samples(run, 25, tmp_path / "made")
    assert content(tmp_path / "made") == flat and not [path for path in (tmp_path / "made").iterdir() if path.is_dir()]
    with pytest.raises(UserError, match="this run generates images of no class"):
        save_samples(trained["vae"], 5, tmp_path / "none", per_class=True)
    with pytest.raises(UserError, match="all images are of the class 3"):
        save_samples(run, 5, tmp_path / "none", label="3", per_class=True)
    assert not (tmp_path / "none").exists()


def test_folders_of_classes_that_are_not_ours_are_left_alone(trained: dict[str, Run], tmp_path: Path) -> None:
    theirs = tmp_path / "photographs" / "rose" / "0001.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    with pytest.raises(UserError, match="holds other files, such as rose"):
        save_samples(trained["cgan"], 5, tmp_path / "photographs", per_class=True)
    assert content(tmp_path / "photographs") == {"rose/0001.png": b"mine"}
    save_samples(trained["cgan"], 5, tmp_path / "made", per_class=True)
    (tmp_path / "made" / "9").symlink_to(theirs.parent)
    with pytest.raises(UserError, match="holds other files, such as 9"):
        save_samples(trained["cgan"], 5, tmp_path / "made")
    assert theirs.read_bytes() == b"mine"


def test_a_disk_that_is_full_is_said(trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, picture: bytes) -> None:
        raise WriteError(f"{path} cannot be written: the disk is full.")

    monkeypatch.setattr(export, "write_one_of_many", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_samples(trained["vae"], 5, tmp_path / "made")
    assert not content(tmp_path / "made") and not (tmp_path / "made-grid.png").exists()


def test_the_zip_holds_the_folder(
    trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trained["cgan"].path), "-n", "12", "--per-class", "--out", str(tmp_path / "made")]
    monkeypatch.setattr(sys, "argv", ["zeuxis", "sample", *words, "--zip", str(tmp_path / "made.zip")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capsys.readouterr().out.split() == [str(tmp_path / "made-grid.png"), str(tmp_path / "made.zip")]
    with zipfile.ZipFile(tmp_path / "made.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == content(tmp_path / "made")
    again = write_zip(tmp_path / "made", tmp_path / "again.zip")
    assert again.read_bytes() == (tmp_path / "made.zip").read_bytes()
    with pytest.raises(UserError, match="lies in the folder that it would pack"):
        write_zip(tmp_path / "made", tmp_path / "made" / "made.zip")


def test_classes_have_a_column_each_with_their_name(trained: dict[str, Run], tmp_path: Path) -> None:
    def grid(n: int, **options: Any) -> np.ndarray:
        folder = tmp_path / f"{n}{options}"
        with Image.open(save_samples(trained["cgan"], n, folder, **options)) as image:
            return np.asarray(image.convert("L"))

    side, gap, head = 64, 4, 28
    assert grid(16).shape == (head + 2 * side + gap, 10 * (side + gap) - gap)
    names = grid(16)[:head]
    assert all((names[:, i * (side + gap) : i * (side + gap) + side] < 200).any() for i in range(10))
    assert grid(3).shape == (head + side, 3 * (side + gap) - gap)
    assert grid(16, label="3").shape == (4 * (side + gap) - gap,) * 2

"""Films: as many frames as promised, in every format, of the images that belong there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeuxis import cli
from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.figures.film import HOLD, journey_film, training_film
from zeuxis.run import Run


def frames(path: Path) -> list[np.ndarray]:
    """All frames of a film, `(H, W, 3)` bytes each."""
    if path.suffix == ".mp4":
        imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
        reader = imageio_ffmpeg.read_frames(str(path))
        width, height = next(reader)["size"]
        return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    with Image.open(path) as film:
        found = []
        for i in range(film.n_frames):
            film.seek(i)
            found.append(np.asarray(film.convert("RGB")))
        return found


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_a_journey_passes_its_places_and_returns(trained: dict[str, Run], tmp_path: Path, suffix: str) -> None:
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    run = trained["cgan"]
    path = journey_film(run, ["3", "8", "1"], tmp_path / f"film{suffix}", steps=4, fps=10, seed=2)
    shown = frames(path)
    assert len(shown) == 12 and shown[0].shape == (256, 256, 3)
    for i, label in enumerate("381"):
        expected = to_bytes(run.sample(1, seed=2, label=label))[0]
        centres = shown[4 * i][8::16, 8::16].astype(int)
        assert np.abs(centres - expected).mean() < 3, "compressed, but the same picture"
    if suffix != ".mp4":
        with Image.open(path) as film:
            film.seek(1)
            film.load()
            assert (film.info["loop"], film.info["duration"]) == (0, 100)


def test_the_film_of_a_training_shows_every_snapshot(trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["gan"]
    shown = frames(training_film(run, tmp_path / "film.webp", fps=10))
    assert len(run.snapshots) > 2
    assert len(shown) in (len(run.snapshots), len(run.snapshots) + 10 * HOLD), "equal frames may be joined"
    for frame, (_, tiles) in zip(shown, run.snapshots, strict=False):
        zoom = round(512 / (4 * 17 - 1))
        first = frame[: 16 * zoom, : 16 * zoom][zoom // 2 :: zoom, zoom // 2 :: zoom].astype(int)
        assert np.abs(first - tiles[0]).mean() < 4


def test_what_cannot_be_filmed_is_said(
    trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["zeuxis", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    run, film = str(trained["cgan"].path), ["--film", str(tmp_path / "film.gif")]
    assert "Name two places with --from and --to, or several" in fails("interpolate", run, "--from", "3", *film)
    assert "Name two places" in fails("interpolate", run, "--through", "3", *film)
    assert "Name two places" in fails("interpolate", run, "--through", "3,8", "--to", "1", *film)
    assert "There is no class '11'" in fails("interpolate", run, "--through", "3,11", *film)
    assert "--out has no use" in fails("interpolate", run, "--through", "3,8", *film, "--out", str(tmp_path / "x"))
    wrong = ["--film", str(tmp_path / "film.avi")]
    assert "ends in one of .gif, .webp, .mp4" in fails("interpolate", run, "--through", "3,8", *wrong)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    lacking = ["--film", str(tmp_path / "film.mp4")]
    assert "pip install 'zeuxis[film]'" in fails("interpolate", run, "--through", "3,8", *lacking)
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_a_film_needs_snapshots(trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(trained["vae"].path)
    monkeypatch.setitem(run.__dict__, "snapshots", run.snapshots[:1])
    with pytest.raises(UserError, match=r"has 1 snapshots, and a film .* training\.snapshot_every"):
        training_film(run, tmp_path / "film.gif")


def test_rows_go_through_several_places(
    trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trained["vae"].path), "--through", "0,0;1,0;0,1", "--steps", "3", "--out", str(tmp_path / "rows")]
    monkeypatch.setattr(sys, "argv", ["zeuxis", "interpolate", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == str(tmp_path / "rows-grid.png")
    rows = [trained["vae"].interpolate(a, b, steps=3) for a, b in (("0,0", "1,0"), ("1,0", "0,1"))]
    for i, expected in enumerate(to_bytes(np.concatenate(rows))):
        with Image.open(tmp_path / "rows" / f"000{i}.png") as image:
            assert np.array_equal(np.asarray(image)[..., None], expected)

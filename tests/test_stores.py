"""Runs in a store: mirrored while they are trained, read and resumed on other machines, whatever fails on the way."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

pytest.importorskip("pyarrow", reason="zeuxis[shards] is not installed")

import zeuxis
from zeuxis import stores
from zeuxis.cli import app
from zeuxis.errors import UserError
from zeuxis.files import LockedError, WriteError, locked
from zeuxis.listing import entries
from zeuxis.recipe import load_recipe
from zeuxis.run import Run, find_run
from zeuxis.study.plan import Part, repeats, train_all
from zeuxis.training import Callback
from zeuxis.training.callbacks import mirroring
from zeuxis.trust import UntrustedError

SETTINGS = {
    "training.batch_size": 16, "training.checkpoint_every": "2 steps", "training.log_every": 1, "training.threads": 1,
    "networks.encoder.layers": ["flatten", "dense 4", "relu"],
    "networks.decoder.layers": ["dense 256", "reshape 1x16x16", "sigmoid"],
}  # fmt: skip


class Machines:
    """Machines with the same store, of which one at a time is this one."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.monkeypatch = place, monkeypatch
        self.address = (place / "bucket" / "runs").as_uri()
        self.on("one")

    def on(self, name: str) -> None:
        """Goes to a machine, in a new process."""
        stores._stores.clear()
        self.monkeypatch.setattr(stores, "cache_dir", lambda: self.place / name)
        self.monkeypatch.setattr(stores, "_PROCESS", f"process on {name}")

    def train(self, steps: int = 4, **more: Any) -> Run:
        settings = SETTINGS | more.pop("settings", {})
        return zeuxis.train("digits-vae", steps=steps, settings=settings, runs=self.address, progress=False, **more)

    def open(self, name: str = "digits-vae-1") -> Run:
        return find_run(name, zeuxis.runs_dir(self.address))

    @property
    def bucket(self) -> Path:
        return self.place / "bucket" / "runs"


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    monkeypatch.setattr(stores, "PAUSE", 0.001)
    monkeypatch.setattr(mirroring, "PAUSE", 0.001)
    monkeypatch.setattr(stores, "LOOK_AGAIN", 0)
    yield Machines(tmp_path, monkeypatch)
    stores._stores.clear()


def contents(run: Run) -> dict[str, bytes]:
    """The files of a run, but those that change with the time it took."""
    files = {path: (run.path / path).read_bytes() for path in stores._regular(run.path)}
    return {path: content for path, content in files.items() if path.endswith((".png", ".toml"))}


def weights(run: Run) -> dict[str, np.ndarray]:
    return load_file(sorted((run.path / "checkpoints").glob("step-*"))[-1])


class Fragile:
    """A store that fails at some of its operations that change it, having done half of a write.

    Args:
        system: the store.
        fails: whether the n-th operation fails, counted from 0.
    """

    def __init__(self, system: Any, fails: Callable[[int], bool]) -> None:
        self.system, self.fails, self.count = system, fails, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.system, name)
        if name not in ("delete_file", "delete_dir", "move", "open_output_stream"):
            return found

        def operation(*words: Any, **more: Any) -> Any:
            number, self.count = self.count, self.count + 1
            if not self.fails(number):
                return found(*words, **more)
            if name == "open_output_stream":
                return self.half(found(*words, **more))
            raise OSError("the connection is gone")

        return operation

    @staticmethod
    @contextmanager
    def half(stream: Any) -> Iterator[Any]:
        class Half:
            def write(self, content: bytes) -> None:
                stream.write(content[: len(content) // 2])
                stream.close()
                raise OSError("the connection is gone")

        yield Half()


def make_fragile(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> list[Fragile]:
    """Makes every store that is opened from now on fail at times; returns them."""
    connect, made = stores.connect, list[Fragile]()

    def fragile(address: str) -> tuple[Any, str]:
        system, root = connect(address)
        made.append(Fragile(system, fails))
        return made[-1], root

    monkeypatch.setattr(stores, "connect", fragile)
    return made


def test_a_run_goes_on_on_another_machine(machines: Machines, tmp_path: Path) -> None:
    first = machines.train(4)
    assert first.path.is_relative_to(tmp_path / "one" / "stores")
    machines.on("two")
    (listed,) = zeuxis.runs(machines.address)
    assert (listed.name, listed.state, listed.step) == ("digits-vae-1", "finished", 4)
    assert not list((tmp_path / "two").rglob("*.safetensors")), "a list downloads no weights"
    assert listed.bytes > 10_000
    second = zeuxis.load(f"{machines.address}/digits-vae-1")
    np.testing.assert_array_equal(second.sample(4), first.sample(4))
    assert contents(second) == contents(first)
    zeuxis.resume(second, steps=8, progress=False)
    machines.on("one")
    again = machines.open()
    assert again.path == first.path and again.step == 8
    unbroken = zeuxis.train("digits-vae", steps=8, settings=SETTINGS, runs=tmp_path / "unbroken", progress=False)
    for name, tensor in weights(unbroken).items():
        np.testing.assert_array_equal(weights(again)[name], tensor, err_msg=name)
    assert [line["step"] for line in again.journal] == list(range(1, 9))
    present = {path.name for path in (machines.bucket / "digits-vae-1" / "objects").iterdir()}
    manifest = json.loads((machines.bucket / "digits-vae-1" / "manifest.json").read_text())
    named = {sha for _, sha in manifest["files"].values()}
    assert named <= present and len(present) <= 2 * len(named), "old objects are removed"
    assert not (machines.bucket / "digits-vae-1" / "lease.json").exists()


def test_new_runs_get_names_that_the_store_does_not_have(machines: Machines) -> None:
    machines.train(2)
    machines.on("two")
    assert machines.train(2).name == "digits-vae-2"
    with pytest.raises(UserError, match="already exists"):
        machines.train(2, name="digits-vae-1")


def test_a_reader_finds_a_whole_run_wherever_an_upload_is_cut(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails from its n-th change on, for every n; then another machine reads it."""
    run = machines.train(2)
    machines.on("one")
    states = {}
    for steps in (2, 4):
        if steps > 2:
            with monkeypatch.context() as patch:
                patch.setattr(stores, "copy_of", lambda folder: None)
                patch.setattr(mirroring, "copy_of", lambda folder: None)
                zeuxis.resume(run.path, steps=steps, progress=False)
        states[steps] = weights(run)
    copy = stores.copy_of(run.path)
    assert copy is not None
    seen = []
    for number in range(100):
        copy.store.system = Fragile(copy.store.system, lambda n, number=number: n >= number)
        try:
            copy.push(copy.stage(None))
            pushed = True
        except stores.StoreError:
            pushed = False
        copy.store.system = copy.store.system.system
        machines.on(f"reader-{number}")
        read = machines.open()
        step = read.step
        for name, tensor in states[step].items():
            np.testing.assert_array_equal(weights(read)[name], tensor, err_msg=name)
        seen.append(step)
        if pushed:
            break
    assert pushed and seen == sorted(seen) and {2, 4} == set(seen) and seen.count(2) >= 3


def test_failures_are_said_once_and_the_training_goes_on(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_fragile(monkeypatch, lambda n: n % 11 == 5)
    whole = machines.train(12)
    assert made[0].count > 20
    error = capsys.readouterr().err
    assert "/digits-vae-1' is up to date, at step 12." in error
    machines.on("two")
    np.testing.assert_array_equal(machines.open().sample(2), whole.sample(2))


def test_a_store_that_is_gone_gets_the_run_later(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    class Listens(Callback):
        def warned(self, words: str) -> None:
            said.append(words)

    with monkeypatch.context() as patch:
        make_fragile(patch, lambda n: True)
        run = machines.train(6, callbacks=[Listens()])
        assert run.step == 6
        assert len(said) == 1 and re.search(
            "cannot be reached: .*The training goes on, and the store is tried", said[0]
        )
        assert re.search("is not up to date: .* A later command with this address sends it.", capsys.readouterr().err)
        stores.finish()
        assert "is sent by a later command" in capsys.readouterr().err
    machines.on("one")
    machines.open()
    stores.finish()
    machines.on("two")
    np.testing.assert_array_equal(machines.open().sample(2), run.sample(2))


def test_a_last_state_that_cannot_be_kept_is_not_said_to_be_sent(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = stores.Copy.stage

    def fails_at_last(self: stores.Copy, place: Path | None) -> stores.Staged:
        checkpoints = sorted(path.name for path in (self.folder / "checkpoints").glob("step-*"))
        if place and "step-00000006.safetensors" in checkpoints:
            raise WriteError("The disk is full.")
        return stage(self, place)

    monkeypatch.setattr(stores.Copy, "stage", fails_at_last)
    machines.train(6)
    error = capsys.readouterr().err
    assert "is not up to date: The disk is full. The run is in" in error and "is up to date" not in error


def test_two_machines_that_train_the_same_run_are_told(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = machines.train(2)
    machines.on("one")
    mine = stores.copy_of(run.path)
    assert mine is not None
    with locked(run.path):
        mine.take()
    machines.on("two")
    other = machines.open()
    assert entries(zeuxis.runs_dir(machines.address))[0].state == "running"
    with pytest.raises(LockedError, match=r"is being trained on the machine .* its lease ends in [0-9]+ seconds"):
        zeuxis.resume(other, steps=4, progress=False)
    for command in (["rm", "digits-vae-1", "--yes"], ["rename", "digits-vae-1", "x"], ["prune", "digits-vae-1"]):
        result = CliRunner().invoke(app, ["runs", *command, "--runs", machines.address])
        assert isinstance(result.exception, LockedError)
    monkeypatch.setattr(stores, "LEASE_SECONDS", -1)  # it was not renewed
    assert zeuxis.resume(other, steps=4, progress=False).step == 4
    monkeypatch.setattr(stores, "LEASE_SECONDS", 300)
    # The first machine did not die: it was only slow.
    machines.on("one")
    monkeypatch.setattr(sys.modules["zeuxis.training.start"], "at_hand", lambda folder: folder)
    capsys.readouterr()
    zeuxis.training.resume(run.path, {"training.steps": 6}, visible=False)
    assert re.search("is not up to date: .*was changed elsewhere since it was read here", capsys.readouterr().err)


def test_a_copy_that_differs_in_the_same_files_is_set_aside(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    run = machines.train(2)
    (run.path / "notes.json").write_text('{"note": "mine"}')
    (run.path / "only-here.json").write_text("1")
    machines.on("two")
    other = machines.open()
    (other.path / "notes.json").write_text('{"note": "theirs"}')
    stores.finish()
    machines.on("one")
    again = machines.open()
    assert json.loads((again.path / "notes.json").read_text()) == {"note": "theirs"}
    (aside,) = (run.path.parent / ".aside").iterdir()
    assert json.loads((aside / "notes.json").read_text()) == {"note": "mine"} and (aside / "only-here.json").exists()
    assert str(aside) in capsys.readouterr().err.replace("\n", "")
    assert [entry.name for entry in zeuxis.runs(machines.address)] == ["digits-vae-1"]


def test_what_is_changed_on_both_sides_in_other_files_is_kept(machines: Machines) -> None:
    machines.train(2)
    machines.on("two")
    other = machines.open()
    (other.path / "evaluation.json").write_text("{}")
    machines.on("one")
    zeuxis.resume(machines.open(), steps=4, progress=False)
    machines.on("two")
    assert machines.open().step == 4 and (other.path / "evaluation.json").read_text() == "{}"
    stores.finish()
    machines.on("three")
    assert (machines.open().path / "evaluation.json").read_text() == "{}"


def test_commands_change_the_store(machines: Machines) -> None:
    def command(*words: str) -> str:
        result = CliRunner().invoke(app, [*words, "--runs", machines.address], catch_exceptions=False)
        stores.finish()
        assert result.exit_code == 0
        return result.output

    machines.train(2)
    command("runs", "note", "digits-vae-1", "sharp")
    machines.on("two")
    assert zeuxis.runs(machines.address)[0].note == "sharp"
    command("runs", "rename", "digits-vae-1", "best")
    command("runs", "prune", "best")
    machines.on("one")
    assert [entry.name for entry in zeuxis.runs(machines.address)] == ["best"]
    assert not machines.open("best").path.joinpath("checkpoints", "step-00000002.safetensors").exists()
    assert not (zeuxis.runs_dir(machines.address) / "digits-vae-1").exists()
    command("runs", "rm", "best", "--yes")
    assert not any(path.is_file() for path in machines.bucket.rglob("*"))
    machines.on("two")
    assert zeuxis.runs(machines.address) == []
    assert not (zeuxis.runs_dir(machines.address) / "best").exists()


def test_a_study_goes_on_on_another_machine(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits-vae", SETTINGS | {"training.steps": 2})
    parts = repeats(Part("one", recipe), 2)
    first = train_all(parts[:1], zeuxis.runs_dir(machines.address) / "study", progress=False)
    machines.on("two")
    trained: list[str] = []
    start = sys.modules["zeuxis.study.plan"].start
    monkeypatch.setattr(
        "zeuxis.study.plan.start", lambda *words, name, **more: trained.append(name) or start(*words, name=name, **more)
    )
    both = train_all(parts, zeuxis.runs_dir(machines.address) / "study", progress=False)
    assert trained == ["one-seed-1"] and list(both) == ["one-seed-0", "one-seed-1"]
    assert both["one-seed-0"].weights == first["one-seed-0"].weights


SHA = "0" * 64


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"../escape.txt": [1, SHA]}, "'../escape.txt' is not the path of a file in a run"),
        ({"/etc/passwd": [1, SHA]}, "is not the path"),
        ({"a/../../b": [1, SHA]}, "is not the path"),
        ({"C:\\windows": [1, SHA]}, "is not the path"),
        ({".zeuxis": [1, SHA]}, "is not the path"),
        ({"a\x1b[2J": [1, SHA]}, "is not the path"),
        ({"lock": [1, SHA]}, "is not the path"),
        ({"/".join("abcdefghi"): [1, SHA]}, "is not the path"),
        ({"a": [1, SHA], "a/b": [1, SHA]}, "'a' is not the path"),
        ({"a": [1, SHA], "A": [1, SHA]}, "differ in capital letters alone"),
        ({"a": [-1, SHA]}, "size or SHA-256"),
        ({"a": [1, "../../secret"]}, "size or SHA-256"),
        ({"a": [True, SHA]}, "size or SHA-256"),
        ({"a": [1]}, "not enough values"),
        ([], "has no attribute"),
        ({str(i): [1, SHA] for i in range(100_001)}, "at most 100,000 are read"),
    ],
)  # fmt: skip
def test_a_strange_manifest_is_refused(machines: Machines, files: Any, reason: str) -> None:
    place = machines.bucket / "run"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({"zeuxis": 1, "files": files}))
    with pytest.raises(UserError, match=f"manifest of 'file:.*/run' is refused: .*{re.escape(reason)}"):
        machines.open("run")
    assert list((zeuxis.runs_dir(machines.address) / "run").iterdir()) == []


@pytest.mark.parametrize("content", ["", "[", "[]", "null", '{"zeuxis": 2, "files": {}}', "[" * 100_000])
def test_a_damaged_manifest_is_refused(machines: Machines, content: str) -> None:
    place = machines.bucket / "run"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="is refused"):
        machines.open("run")


def test_a_damaged_object_is_refused(machines: Machines) -> None:
    machines.train(2)
    manifest = json.loads((machines.bucket / "digits-vae-1" / "manifest.json").read_text())
    largest = (
        machines.bucket / "digits-vae-1" / "objects" / manifest["files"]["checkpoints/step-00000002.safetensors"][1]
    )
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    largest.write_bytes(content)
    machines.on("two")
    with pytest.raises(
        UserError, match=r"checkpoints/.*.safetensors of .* is damaged: it is not what the manifest says"
    ):
        machines.open()
    largest.write_bytes(bytes(content) * 2)
    with pytest.raises(UserError, match="is damaged"):
        machines.open()
    assert not list(zeuxis.runs_dir(machines.address).rglob("*.safetensors"))


def test_code_of_a_run_in_a_store_needs_trust(machines: Machines, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("raise SystemExit('it was run')\n")
    run = machines.train(2)
    recipe = run.path / "recipe.toml"
    (run.path / "plugins").mkdir()
    (run.path / "plugins" / "mine.py").write_bytes(plugin.read_bytes())
    recipe.write_text(recipe.read_text("utf-8").replace("plugins = []", 'plugins = ["mine.py"]'), "utf-8")
    stores.finish()
    machines.on("two")
    with pytest.raises(UntrustedError, match=r"mine.py.*add --trust"):
        _ = machines.open().recipe


def test_a_watcher_sees_a_training_elsewhere_and_its_end(machines: Machines) -> None:
    """The training waits in its third step until another machine has looked at it."""
    reached, seen = threading.Event(), threading.Event()

    class Waits(Callback):
        def iterated(self, trainer: Any) -> None:
            if trainer.step == 3:
                reached.set()
                assert seen.wait(60)

    failed: list[BaseException] = []

    def train() -> None:
        try:
            machines.train(4, callbacks=[Waits()])
        except BaseException as error:  # noqa: BLE001 - the test shows it
            failed.append(error)

    training = threading.Thread(target=train)
    training.start()
    assert reached.wait(60)
    address = machines.address
    store = stores.Store(address, machines.place / "two" / "stores" / "x")
    copy = store.copy("digits-vae-1")
    for _ in range(1000):
        copy.pull()
        if (copy.folder / "checkpoints" / "step-00000002.safetensors").exists():
            break
        threading.Event().wait(0.01)
    assert copy.leased
    assert Run(copy.folder).step == 2
    seen.set()
    training.join()
    assert not failed
    copy.pull()
    assert not copy.leased and Run(copy.folder).step == 4


def test_addresses_that_cannot_work_are_refused(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"'ftp://.*' is no store"):
        zeuxis.runs_dir("ftp://host/runs")
    with pytest.raises(UserError, match="set them in the environment"):
        zeuxis.runs_dir("s3://key:secret@bucket/runs")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="needs a folder that they share"):
        zeuxis.runs_dir(machines.address)


def test_no_run_of_that_name(machines: Machines) -> None:
    machines.train(2)
    with pytest.raises(UserError, match="There is no run 'nothing'"):
        machines.open("nothing")
    (machines.bucket / "photographs").mkdir()
    machines.on("two")
    with pytest.raises(UserError, match=r"is not a run: it has no recipe.toml"):
        machines.open("photographs")


# -- a store over the network -------------------------------------------------------------------------


class Cuts:
    """A way to a server on loopback that cuts a connection after so many bytes, as often as it is told to.

    Args:
        port: of the server.
        after: bytes sent to it.
        times: how many connections are cut.
    """

    def __init__(self, port: int, after: int, times: int) -> None:
        self.port, self.after, self.times, self.cut = port, after, times, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self.socket.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.port))
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, counts: bool) -> None:
        passed = 0
        with suppress(OSError):
            while content := one.recv(4096):
                passed += len(content)
                if counts and passed > self.after and self.cut < self.times:
                    self.cut += 1
                    break
                other.sendall(content)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_run_is_mirrored_to_s3_over_a_line_that_breaks(
    s3: Any, machines: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.create_dir("laboratory")
    machines.address = "s3://laboratory/runs"
    with closing((line := Cuts(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]), 20_000, 6)).socket):
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", line.address)
            run = machines.train(6)
        assert line.cut == 6
    assert "'s3://laboratory/runs/digits-vae-1' is up to date, at step 6." in capsys.readouterr().err
    machines.on("two")
    assert [entry.name for entry in zeuxis.runs(machines.address)] == ["digits-vae-1"]
    other = machines.open()
    np.testing.assert_array_equal(other.sample(2), run.sample(2))
    zeuxis.resume(other, steps=8, progress=False)
    machines.on("one")
    assert machines.open().step == 8
    CliRunner().invoke(app, ["runs", "rm", "digits-vae-1", "--yes", "--runs", machines.address], catch_exceptions=False)
    machines.on("two")
    assert zeuxis.runs(machines.address) == []
    with pytest.raises(UserError, match=r"There is no bucket nothing-here, which 's3://nothing-here/runs' names"):
        zeuxis.train("digits-vae", steps=1, settings=SETTINGS, runs="s3://nothing-here/runs", progress=False)

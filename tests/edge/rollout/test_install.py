"""A device's bundles: switched whole, tested first, and the last good one kept, whenever the process is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import until

from edge.bundle import Bundle, sign_bundle
from edge.cli.main import main
from edge.errors import BundleError, DownloadError, InputError
from edge.gallery import Binding, Gallery
from edge.rollout import Installer, Store, check, publish, read_index, roll_back
from edge.rollout.trial import SelfTestTrial
from edge.rollout.trial_process import problem_of
from edge.signing import PublicKey, SigningKey, generate
from edge.weights.download import DownloadOptions

DEVICE = "device-1"


def trial(path: Path) -> str | None:
    """The real test, in this process."""
    return problem_of(path, "onnxruntime", None)


def installer(store: Store, **more: Any) -> Installer:
    return Installer(store, trial, options=DownloadOptions(timeout=60, attempts=2, backoff=0.01), **more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def whole(store: Store) -> Bundle:
    """The bundle that edge run would open, every byte checked."""
    bundle = Bundle.open(store.folder / "current")
    for variant in bundle.manifest.variants:
        bundle.load(variant)
    return bundle


def test_a_device_takes_a_bundle_keeps_it_and_moves_on(make: Any, web: Any, store: Store, tmp_path: Path) -> None:
    one, two, three = (make(tmp_path / str(n), n) for n in (1, 2, 3))
    publish(one, web.folder)
    found = installer(store).install(read_index(web.url), DEVICE)
    assert (found.digest, found.before, found.changed, found.refused) == (one.digest(), None, True, {})
    assert whole(store).digest() == one.digest()
    web.asked.clear()
    again = installer(store).install(read_index(web.url), DEVICE)
    assert not again.changed
    assert web.paths() == ["index.json"]
    for bundle in (two, three):
        publish(bundle, web.folder)
        web.asked.clear()
        installer(store).install(read_index(web.url), DEVICE)
        assert "detector.onnx" not in web.paths(), "what the device has was fetched again"
    assert (store.current, store.previous) == (three.digest(), two.digest())
    assert store.kept() == tuple(sorted((two.digest(), three.digest())))
    assert not list(store.incoming.iterdir())
    assert (store.folder / "switched").read_text().strip() == three.digest()


@pytest.mark.parametrize("fault", ["wrong answers", "no self-test"])
def test_a_bundle_that_fails_its_test_is_never_used_nor_fetched_again(
    fault: str, make: Any, web: Any, store: Store, tmp_path: Path
) -> None:
    good = make(tmp_path / "good")
    bad = make(tmp_path / "bad", 1, good=fault != "wrong answers", tested=fault != "no self-test")
    publish(good, web.folder)
    installer(store).install(read_index(web.url), DEVICE)
    publish(bad, web.folder)
    found = installer(store).install(read_index(web.url), DEVICE)
    assert (found.digest, found.changed) == (good.digest(), False)
    assert ("DEVIATES" if fault == "wrong answers" else "no self-test") in found.refused[bad.digest()]
    assert whole(store).digest() == good.digest()
    assert store.kept() == (good.digest(),)
    web.asked.clear()
    assert installer(store).install(read_index(web.url), DEVICE).refused == found.refused
    assert web.paths() == ["index.json"]
    installer(store, retry=True).install(read_index(web.url), DEVICE)
    assert "embedder.onnx" in web.paths()
    assert whole(store).digest() == good.digest()


def test_a_device_without_a_bundle_is_told_that_none_passes(make: Any, store: Store, tmp_path: Path) -> None:
    publish(make(tmp_path / "bad", good=False), tmp_path / "www")
    with pytest.raises(BundleError, match=r"no bundle passes on this device: [0-9a-f]{12}: .*DEVIATES"):
        installer(store).install(read_index(str(tmp_path / "www")), DEVICE)
    assert store.current is None
    with pytest.raises(BundleError, match="holds no bundle"):
        check(store, trial)


def test_a_canary_that_fails_leaves_its_devices_on_the_bundle_for_all(make: Any, store: Store, tmp_path: Path) -> None:
    old, new, www = make(tmp_path / "old"), make(tmp_path / "new", 1, good=False), tmp_path / "www"
    publish(old, www)
    publish(new, www, 100)
    found = installer(store).install(read_index(str(www)), DEVICE)
    assert (found.digest, list(found.refused)) == (old.digest(), [new.digest()])


def test_a_withdrawn_canary_goes_back_without_fetching(make: Any, web: Any, store: Store, tmp_path: Path) -> None:
    old, new = make(tmp_path / "old"), make(tmp_path / "new", 1)
    publish(old, web.folder)
    installer(store).install(read_index(web.url), DEVICE)
    publish(new, web.folder, 100)
    assert installer(store).install(read_index(web.url), DEVICE).digest == new.digest()
    publish(old, web.folder)
    index = read_index(web.url)
    web.asked.clear()
    back = installer(store).install(replace(index, canary=None), DEVICE)
    assert (back.digest, back.before) == (old.digest(), new.digest())
    assert web.asked == []


def test_at_its_start_a_device_goes_back_from_a_bundle_that_fails_now(make: Any, store: Store, tmp_path: Path) -> None:
    one, two, www = make(tmp_path / "1"), make(tmp_path / "2", 2), tmp_path / "www"
    for bundle in (one, two):
        publish(bundle, www)
        installer(store).install(read_index(str(www)), DEVICE)
    assert check(store, trial).gone_back_from is None
    model = store.path(two.digest()) / "embedder.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    found = check(store, trial)
    assert found.digest == one.digest()
    assert found.gone_back_from is not None
    assert found.gone_back_from[0] == two.digest()
    assert "digest differs" in found.gone_back_from[1]
    assert whole(store).digest() == one.digest()
    assert store.refused() == {}, "lost bytes are no fault of the bundle"
    again = installer(store).install(read_index(str(www)), DEVICE)
    assert (again.digest, again.before, again.mended) == (two.digest(), one.digest(), None)
    assert whole(store).digest() == two.digest()
    for bundle in (one, two):
        (store.path(bundle.digest()) / "detector.onnx").unlink()
    with pytest.raises(BundleError, match="no other one passes"):
        check(store, trial)


def test_what_a_disk_lost_of_the_bundle_in_use_is_fetched_anew_whenever_that_is_killed(
    make: Any, tmp_path: Path
) -> None:
    bundle, www, ready = make(tmp_path / "b"), tmp_path / "www", Store(tmp_path / "ready")
    publish(bundle, www)
    index = read_index(str(www))
    installer(ready).install(index, DEVICE)
    (ready.path(bundle.digest()) / "embedder.onnx").write_bytes(b"lost")
    (ready.path(bundle.digest()) / "bundle.json").unlink()
    killed, steps = True, 0
    while killed:
        steps += 1
        store = Store(tmp_path / f"store{steps}")
        shutil.copytree(ready.folder, store.folder, symlinks=True)
        quick = Installer(store, lambda _: None)
        killed = killed_at(steps, store, lambda quick=quick: quick.install(index, DEVICE))
        assert store.current == bundle.digest()
        found = installer(store).install(index, DEVICE)
        assert (found.digest, found.changed, found.refused) == (bundle.digest(), False, {})
        assert whole(store).digest() == bundle.digest()
    assert steps > 5
    found = installer(ready).install(index, DEVICE)
    assert found.mended is not None
    assert "bundle.json" in found.mended
    assert installer(ready).install(index, DEVICE).mended is None


def test_the_bundle_in_use_stays_where_what_was_fetched_anew_fails_its_test(
    make: Any, store: Store, tmp_path: Path
) -> None:
    bundle, www = make(tmp_path / "b"), tmp_path / "www"
    publish(bundle, www)
    index = read_index(str(www))
    installer(store).install(index, DEVICE)
    (store.path(bundle.digest()) / "embedder.onnx").write_bytes(b"lost")
    found = Installer(store, lambda _: "another driver").install(index, DEVICE)
    assert (found.digest, found.refused) == (bundle.digest(), {bundle.digest(): "another driver"})
    assert whole(store).digest() == bundle.digest()


def test_an_engine_that_changed_under_a_bundle_sends_it_back_too(make: Any, store: Store, tmp_path: Path) -> None:
    one, two, www = make(tmp_path / "1"), make(tmp_path / "2", 2), tmp_path / "www"
    for bundle in (one, two):
        publish(bundle, www)
        installer(store).install(read_index(str(www)), DEVICE)
    found = check(store, lambda path: "another driver" if path.name == two.digest() else None)
    assert found.gone_back_from == (two.digest(), "another driver")
    assert store.refused() == {two.digest(): "another driver"}


def test_back_by_hand_to_the_previous_one_or_by_digest(make: Any, store: Store, tmp_path: Path) -> None:
    one, two, www = make(tmp_path / "1"), make(tmp_path / "2", 2), tmp_path / "www"
    publish(one, www)
    installer(store).install(read_index(str(www)), DEVICE)
    with pytest.raises(InputError, match="no previous bundle"):
        roll_back(store, trial)
    publish(two, www)
    installer(store).install(read_index(str(www)), DEVICE)
    back = roll_back(store, trial)
    assert (back.digest, back.before) == (one.digest(), two.digest())
    assert installer(store).install(read_index(str(www)), DEVICE).digest == one.digest(), "it came again by itself"
    assert roll_back(store, trial, to=two.digest()[:10]).digest == two.digest()
    with pytest.raises(InputError, match="in use already"):
        roll_back(store, trial, to=two.digest()[:10])
    with pytest.raises(InputError, match="0 bundles here begin so"):
        roll_back(store, trial, to="xyz")
    with pytest.raises(BundleError, match="nothing was changed"):
        roll_back(store, lambda _: "fails", to=one.digest())
    assert whole(store).digest() == two.digest()


@pytest.fixture
def keys(tmp_path: Path) -> tuple[SigningKey, PublicKey]:
    generate(tmp_path / "release.key")
    return SigningKey.read(tmp_path / "release.key"), PublicKey.read(tmp_path / "release.key.pub")


def test_only_signed_bundles_come_to_a_device_that_requires_them(
    make: Any, web: Any, store: Store, tmp_path: Path, keys: tuple[SigningKey, PublicKey]
) -> None:
    secret, public = keys
    bundle = make(tmp_path / "b")
    publish(bundle, web.folder)
    with pytest.raises(BundleError, match="is not signed"):
        installer(store, key=public).install(read_index(web.url), DEVICE)
    generate(tmp_path / "other.key")
    sign_bundle(bundle, SigningKey.read(tmp_path / "other.key"))
    publish(bundle, web.folder)
    with pytest.raises(BundleError, match="signed with key"):
        installer(store, key=public).install(read_index(web.url), DEVICE)
    assert "embedder.onnx" not in web.paths(), "models were fetched before the signature was checked"
    assert store.refused() == {}
    sign_bundle(bundle, secret)
    publish(bundle, web.folder)
    installer(store, key=public).install(read_index(web.url), DEVICE)
    assert Bundle.open(store.folder / "current", public).digest() == bundle.digest()
    (store.path(bundle.digest()) / "bundle.sig").unlink()
    with pytest.raises(BundleError, match="is not signed"):
        check(store, trial, public)


def test_the_bundle_in_use_must_be_signed_too_once_that_is_required(
    make: Any, web: Any, store: Store, tmp_path: Path, keys: tuple[SigningKey, PublicKey]
) -> None:
    secret, public = keys
    bundle = make(tmp_path / "b")
    publish(bundle, web.folder)
    installer(store).install(read_index(web.url), DEVICE)
    with pytest.raises(BundleError, match="is not signed"):
        installer(store, key=public).install(read_index(web.url), DEVICE)
    assert (store.current, store.refused()) == (bundle.digest(), {})
    sign_bundle(bundle, secret)
    publish(bundle, web.folder)
    installer(store, key=public).install(read_index(web.url), DEVICE)
    assert Bundle.open(store.folder / "current", public).digest() == bundle.digest()


def test_bytes_that_are_not_the_indexs_or_the_manifests_are_not_taken(
    make: Any, web: Any, store: Store, tmp_path: Path
) -> None:
    bundle = make(tmp_path / "b")
    publish(bundle, web.folder)
    served = web.folder / bundle.digest()
    for name in ("bundle.json", "embedder.onnx"):
        data = (served / name).read_bytes()
        (served / name).write_bytes(data[:-1] + b"?")
        with pytest.raises(DownloadError):
            installer(store).install(read_index(web.url), DEVICE)
        (served / name).write_bytes(data)
        assert store.current is None
        assert store.kept() == ()
    installer(store).install(read_index(web.url), DEVICE)
    assert whole(store).digest() == bundle.digest()


def test_a_bundle_that_the_gallery_does_not_fit_is_refused(make: Any, store: Store, tmp_path: Path) -> None:
    old = make(tmp_path / "old")
    other = make(tmp_path / "new", embedder=replace(old.select("embedder").contract, normalised=True))
    with Gallery.create(tmp_path / "people", Binding.of(old.select("embedder"))):
        pass

    def accepts(bundle: Bundle) -> None:
        with Gallery.open(tmp_path / "people") as gallery:
            gallery.variant_in(bundle)

    for bundle in (old, other):
        publish(bundle, tmp_path / "www")
        found = installer(store, accepts=accepts).install(read_index(str(tmp_path / "www")), DEVICE)
    assert found.digest == old.digest()
    assert "gallery" in found.refused[other.digest()] or "people" in found.refused[other.digest()]


def test_the_bundle_in_use_is_held_against_the_gallery_as_well(
    make: Any, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gallery of another model took the place of the one before: "as before" was said, and nobody was known."""
    used, other = make(tmp_path / "used"), make(tmp_path / "other", 2)
    other_model = replace(Binding.of(used.select("embedder")), model_sha256="0" * 64)
    fitting, foreign, www = tmp_path / "fitting", tmp_path / "foreign", tmp_path / "www"
    for folder, binding in ((fitting, Binding.of(used.select("embedder"))), (foreign, other_model)):
        with Gallery.create(folder, binding) as gallery:
            gallery.add("ada", np.eye(binding.embedding_size, dtype=np.float32)[:1], ["a.png"])
    publish(used, www)

    def install(gallery: Path) -> tuple[int, str, str]:
        words = ["rollout", "install", "--from", www, "--store", store.folder, "--device-id", DEVICE]
        return main([str(word) for word in (*words, "--gallery", gallery)]), *capsys.readouterr()

    assert install(fitting)[0] == 0
    assert install(fitting)[1].endswith(", as before\n")
    code, out, err = install(foreign)
    assert code == 3
    assert "as before" not in out
    assert "foreign: holds vectors of" in err
    assert f"keeps {used.digest()[:12]}" in err
    assert len(err.strip().splitlines()) == 1
    assert store.refused() == {}, "a migrated gallery would mend it"
    assert install(fitting)[:2] == (0, f"{store.folder / 'current'}: {used.digest()[:12]}, as before\n")
    # A canary that does not fit any more: the bundle for all takes its place, if it fits.
    publish(other, www, 100)
    with Gallery.create(tmp_path / "others", Binding.of(other.select("embedder"))) as gallery:
        gallery.add("ada", np.eye(other_model.embedding_size, dtype=np.float32)[:1], ["a.png"])
    assert install(tmp_path / "others")[0] == 0
    assert store.current == other.digest()
    assert install(fitting)[0] == 3
    assert store.current == used.digest()


def test_only_one_works_on_a_store_at_a_time(make: Any, store: Store, tmp_path: Path) -> None:
    publish(make(tmp_path / "b"), tmp_path / "www")
    with store.alone(), pytest.raises(BundleError, match="another edge rollout"):
        installer(Store(store.folder)).install(read_index(str(tmp_path / "www")), DEVICE)


def test_a_disk_that_takes_nothing_is_one_line(make: Any, store: Store, tmp_path: Path) -> None:
    one, two, www = make(tmp_path / "1"), make(tmp_path / "2", 2), tmp_path / "www"
    publish(one, www)
    installer(store).install(read_index(str(www)), DEVICE)
    publish(two, www)
    # A file where a folder should be made: what the system says of it is like what it says of a full disk.
    (store.incoming / two.digest()).write_text("")
    with pytest.raises(InputError, match="the bundle in use stays"):
        installer(store).install(read_index(str(www)), DEVICE)
    assert whole(store).digest() == one.digest()
    (store.incoming / two.digest()).unlink()
    assert installer(store).install(read_index(str(www)), DEVICE).digest == two.digest()


WRITES = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "shutil.rmtree",
    "shutil.copyfile",
}


def killed_at(step: int, store: Store, work: Any) -> bool:
    """Runs `work` in a child that kills itself, with SIGKILL, before its `step`-th change to the store's files.

    Whether it was killed: a child with fewer steps ends by itself.
    """
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in WRITES and str(arguments[0]).startswith(str(store.folder)):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("task", ["install", "refuse", "check", "rollback"])
def test_killed_at_any_step_a_whole_bundle_is_in_use(task: str, make: Any, tmp_path: Path) -> None:
    """Every single change to the disk is tried, each in a process that really dies there."""
    one, two, www = make(tmp_path / "1", 1), make(tmp_path / "2", 2), tmp_path / "www"
    known = {one.digest(), two.digest()}
    failing = two.digest() if task in ("refuse", "check") else ""

    def test(path: Path) -> str | None:
        return "fails" if path.name == failing else None

    ready = Store(tmp_path / "ready")
    for bundle in (one, two) if task in ("check", "rollback") else (one,):
        publish(bundle, www)
        Installer(ready, lambda _: None).install(read_index(str(www)), DEVICE)
    publish(two, www)
    index = read_index(str(www))
    steps = 0
    while True:
        steps += 1
        store = Store(tmp_path / f"store{steps}")
        shutil.copytree(ready.folder, store.folder, symlinks=True)
        work = {
            "install": lambda store=store, index=index: Installer(store, test).install(index, DEVICE),
            "refuse": lambda store=store, index=index: Installer(store, test).install(index, DEVICE),
            "check": lambda store=store: check(store, test),
            "rollback": lambda store=store: roll_back(store, test),
        }[task]
        killed = killed_at(steps, store, work)
        assert whole(store).digest() in known
        assert not failing or task == "check" or store.current == one.digest()
        if killed and not (task == "rollback" and store.current == one.digest()):
            work()
        with store.alone():
            pass  # as whatever comes next does
        wanted = two.digest() if task == "install" else one.digest()
        assert whole(store).digest() == wanted, f"after a kill at step {steps} the next run did not finish the work"
        assert (store.folder / "switched").read_text().strip() == wanted
        if not killed:
            break
    assert steps > {"install": 20, "refuse": 15, "check": 8, "rollback": 8}[task]


def edge(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_download_killed_in_the_middle_goes_on_from_there(make: Any, web: Any, store: Store, tmp_path: Path) -> None:
    old, new = make(tmp_path / "old"), make(tmp_path / "new", 400_000)
    publish(old, web.folder)
    command = ["rollout", "install", "--from", web.url, "--store", store.folder, "--device-id", DEVICE]
    assert edge(*command).returncode == 0
    publish(new, web.folder)
    web.stop_after = 300_000
    part = store.incoming / new.digest() / "embedder.onnx.part"
    process = subprocess.Popen([sys.executable, "-m", "edge", *map(str, command)], stderr=subprocess.DEVNULL)
    until(lambda: part.exists() and part.stat().st_size >= 250_000)
    process.kill()
    process.wait()
    there = part.stat().st_size
    assert there >= 250_000
    assert whole(store).digest() == old.digest()
    web.stop_after = None
    web.asked.clear()
    done = edge(*command)
    assert done.returncode == 0, done.stderr
    assert whole(store).digest() == new.digest()
    assert [asked for path, asked in web.asked if path.endswith("embedder.onnx")] == [f"bytes={there}-"]


def test_the_test_is_a_process_that_may_crash_or_hang(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, bad = make(tmp_path / "good"), make(tmp_path / "bad", good=False)
    assert SelfTestTrial()(bundle.path) is None
    assert "DEVIATES" in str(SelfTestTrial()(bad.path))
    assert "no int8 embedder" in str(SelfTestTrial("int8")(bundle.path))
    assert "took more than 0.01 s" in str(SelfTestTrial(timeout=0.01)(bundle.path))
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    assert SelfTestTrial()(bundle.path) == "its self-test was ended by signal 11"


def test_from_publishing_to_a_picture_on_the_command_line(
    make: Any, toy: Any, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def edge(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    one, two, bad = make(tmp_path / "one"), make(tmp_path / "two", 2), make(tmp_path / "bad", 3, good=False)
    www = tmp_path / "www"
    picture = toy.write_scene(tmp_path / "photos" / "a.png", 256, 192, [(1, 64, 64)])
    install = ["rollout", "install", "--from", www, "--store", store.folder, "--device-id", DEVICE]
    assert edge("rollout", "publish", one.path, "--to", www)[1].endswith("is for all devices\n")
    assert edge(*install)[0] == 0
    out = tmp_path / "out.npz"
    assert edge("embed", "--bundle", store.folder / "current", picture, "--out", out)[0] == 0
    assert "is for 100 % of the devices" in edge("rollout", "publish", two.path, "--to", www, "--canary", 100)[1]
    assert json.loads(edge(*install, "--json")[1]) == {
        "digest": two.digest(),
        "before": one.digest(),
        "changed": True,
        "refused": {},
        "mended": None,
    }
    assert one.digest()[:12] in edge("rollout", "withdraw", "--to", www)[1]
    assert edge("rollout", "publish", bad.path, "--to", www)[0] == 0
    code, _, errors = edge(*install)
    assert code == 3
    assert "DEVIATES" in errors
    assert len(errors.strip().splitlines()) == 1
    assert edge("rollout", "check", "--store", store.folder)[0] == 0
    assert edge("rollout", "rollback", "--store", store.folder)[0] == 0
    status = json.loads(edge("rollout", "status", "--store", store.folder, "--json")[1])
    assert (status["current"], status["previous"]) == (one.digest(), two.digest())
    assert set(status["refused"]) == {bad.digest(), two.digest()}

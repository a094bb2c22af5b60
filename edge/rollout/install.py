"""What a device does: takes the bundle meant for it, tests it, switches, and goes back where it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.bundle import Bundle
from edge.errors import BundleError, EdgeError, InputError
from edge.rollout.index import Index, Release
from edge.rollout.store import Store
from edge.rollout.transfer import Progress, bring
from edge.rollout.trial import SelfTestTrial, Trial
from edge.signing import PublicKey
from edge.weights.download import DownloadOptions


def _no_progress(_: int, __: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Installed:
    """What came of it. digest: of the bundle in use now; before: of the one in use until now, None for none.

    refused: bundles that were meant for this device and failed here, now or earlier, and why; among them the one in use
    where it does not fit what the device has, and no other does. mended: what was damaged
    of the bundle in use and was fetched anew; None for nothing.
    """

    digest: str
    before: str | None
    refused: dict[str, str] = field(default_factory=dict)
    mended: str | None = None

    @property
    def changed(self) -> bool:
        """Whether another bundle is in use now."""
        return self.digest != self.before


@dataclass(frozen=True, slots=True)
class Checked:
    """digest: of the bundle in use now; gone_back_from: the one that failed, and why, where the device went back."""

    digest: str
    gone_back_from: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Installer:
    """How a device takes bundles.

    trial: the test a bundle must pass. key: it must be signed with. accepts: raises EdgeError where a bundle does not
    fit what the device has, as a gallery of another model. retry: try bundles that failed here before.
    """

    store: Store
    trial: Trial = field(default_factory=SelfTestTrial)
    key: PublicKey | None = None
    accepts: Callable[[Bundle], None] = lambda _: None
    options: DownloadOptions = field(default_factory=DownloadOptions)
    progress: Progress = _no_progress
    retry: bool = False

    def install(self, index: Index, device: str) -> Installed:
        """Brings this device to the bundle that the index means for it.

        A bundle that fails is noted and not fetched again; the next one of the index takes its place, and without one
        the device stays as it is. Raises BundleError where the device has no bundle and none passes, or one is not
        signed as required, and DownloadError or InputError where nothing could be fetched: nothing is changed then.
        """
        releases = index.releases_for(device)
        if not releases:
            raise InputError(f"{index.name}: holds no bundle for this device yet; publish one: edge rollout publish")
        with self.store.alone():
            before, failed = self.store.current, dict[str, str]()
            damage = None if before is None else damage_of(self.store.path(before), self.key)
            for release in releases:
                earlier = None if self.retry else self.store.refused().get(release.digest)
                problem = earlier or self._take(index, release)
                if problem is None:
                    return Installed(release.digest, before, failed, damage if release.digest == before else None)
                failed[release.digest] = problem
            if before is None:
                reasons = "; ".join(f"{digest[:12]}: {reason}" for digest, reason in failed.items())
                raise BundleError(f"{self.store.folder}: no bundle passes on this device: {reasons}")
            return Installed(before, before, failed)

    def _take(self, index: Index, release: Release) -> str | None:
        """Switches to a release; why not, where it fails on this device."""
        store, digest = self.store, release.digest
        damage = damage_of(store.path(digest), self.key) if digest in store.kept() else None
        if store.current == digest and damage is None:
            # Not noted as refused where it does not fit: the bundle is good, and a gallery may be migrated.
            return _unfit(store.path(digest), self.key, self.accepts)
        if digest not in store.kept() or damage is not None:
            bring(index, release, store, self.key, self.options, self.progress)
            store.take_in(digest)
        problem = problem_of(store.path(digest), self.key, self.trial, self.accepts)
        if problem is not None:
            store.refuse(digest, problem)
            if digest not in (store.current, store.previous):
                store.discard(digest)
            return problem
        store.forgive(digest)
        store.switch(digest)
        store.prune()
        return None


def check(store: Store, trial: Trial, key: PublicKey | None = None) -> Checked:
    """Tests the bundle in use, and goes back to the last one that passes where it fails.

    For the start of a device: an engine or a driver may have changed under the bundle, a disk may have lost bytes.
    Raises BundleError where there is none, or none passes; nothing is changed then.
    """
    with store.alone():
        current = store.current
        if not store.kept():
            raise BundleError(f"{store.folder}: holds no bundle; edge rollout install brings one")
        problem = "is not there" if current is None else problem_of(store.path(current), key, trial)
        if problem is None and current is not None:
            return Checked(current)
        good = [digest for digest in store.kept() if digest not in store.refused()]
        for digest in dict.fromkeys([store.previous, *good]):
            if digest not in (None, current) and problem_of(store.path(digest), key, trial) is None:
                # Lost bytes are no fault of the bundle: the next install fetches it anew.
                if current is not None and damage_of(store.path(current)) is None:
                    store.refuse(current, problem or "")
                store.switch(digest)
                return Checked(digest, (current or "", problem or ""))
        raise BundleError(
            f"{store.folder}: the bundle in use fails here ({problem}), and no other one passes; edge rollout install "
            "mends a damaged one"
        )


def roll_back(store: Store, trial: Trial, key: PublicKey | None = None, to: str | None = None) -> Installed:
    """Goes back to the previous bundle, or to the one whose digest begins with `to`, if it passes the test.

    The one that was left is noted, so that no install brings it again. Raises BundleError or InputError.
    """
    with store.alone():
        current, digest = store.current, _wanted(store, to)
        if digest == current:
            raise InputError(f"{digest[:12]} is in use already")
        if (problem := problem_of(store.path(digest), key, trial)) is not None:
            raise BundleError(f"{digest[:12]} fails on this device ({problem}); nothing was changed")
        if current is not None:
            store.refuse(current, "rolled back by hand; edge rollout install --retry takes it again")
        store.forgive(digest)
        store.switch(digest)
        return Installed(digest, current)


def problem_of(
    path: Path, key: PublicKey | None, trial: Trial, accepts: Callable[[Bundle], None] = lambda _: None
) -> str | None:
    """Why a bundle of the store must not be used: signature, digests, what the device has, then the test; else None."""
    if (damage := damage_of(path, key)) is not None:
        return damage
    return _unfit(path, key, accepts) or trial(path)


def damage_of(path: Path, key: PublicKey | None = None) -> str | None:
    """What of a bundle of the store is not as it was when it came, or not signed with `key`; None where all is."""
    try:
        bundle = Bundle.open(path, key)
        if bundle.digest() != path.name:
            return "its manifest was changed since it was installed"
        for variant in bundle.manifest.variants:
            bundle.load(variant)
    except EdgeError as error:
        return str(error)
    return None


def _unfit(path: Path, key: PublicKey | None, accepts: Callable[[Bundle], None]) -> str | None:
    """Why a bundle does not fit what the device has; None where it does."""
    try:
        accepts(Bundle.open(path, key))
    except EdgeError as error:
        return str(error)
    return None


def _wanted(store: Store, to: str | None) -> str:
    if to is None:
        if store.previous is None:
            raise InputError(f"{store.folder}: there is no previous bundle to go back to")
        return store.previous
    fitting = [digest for digest in store.kept() if digest.startswith(to)]
    if len(fitting) != 1:
        there = ", ".join(digest[:12] for digest in store.kept()) or "none"
        raise InputError(f"{to}: {len(fitting)} bundles here begin so; there is {there}")
    return fitting[0]

"""The storage's fence, by two independent clients: one table of cases for all.

A test file subclasses `FenceSuite` and gives the fixture `clients` and what
the storage at hand answers.
"""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.contract.storage_world import IMAGE, LEAF, MOVED, OTHER, SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.channel import Remote
    from tests.support.clients import Clients

DONE = "done"
EPOCH = ".sharedcache/epochs/5"

BEFORE, EMPTIED, REMOVED, SEALED = "before", "emptied", "removed", "sealed"
STAGES = (BEFORE, EMPTIED, REMOVED, SEALED)
"""What the successor has done when the late leader makes its attempt."""

_STEPS: dict[str, list[list[Any]]] = {
    BEFORE: [],
    EMPTIED: [["epoch_make", 6], ["epoch_move", 5, LEAF, 6, MOVED]],
    REMOVED: [["epoch_remove", 5]],
    SEALED: [["epoch_seal", 5]],
}

SYSTEM_CALLS: dict[str, tuple[str, ...]] = {
    "rename into it, by path": ("rename", OTHER, f"{EPOCH}/{SECOND}"),
    "rename into it, by descriptor": ("rename", f"@./{OTHER}", f"@{EPOCH}/{SECOND}"),
    "link into it, by descriptor": ("link", f"@./{OTHER}", f"@{EPOCH}/{SECOND}"),
    "create in it, by descriptor": ("create", f"@{EPOCH}/{SECOND}"),
    "unlink from it, by path": ("unlink", f"{EPOCH}/{LEAF}"),
    "unlink from it, by descriptor": ("unlink", f"@{EPOCH}/{LEAF}"),
    "rename out of it, by descriptor": ("rename", f"@{EPOCH}/{LEAF}", f"@./{IMAGE}"),
    "link out of it, by descriptor": ("link", f"@{EPOCH}/{LEAF}", f"@./{IMAGE}"),
    "mkdir of it, by path": ("mkdir", EPOCH),
}
"""What a late leader may still ask for, as bare system calls."""

ADAPTER: dict[str, tuple[Any, ...]] = {
    "quarantine": ("quarantine", OTHER, 5, SECOND),
    "purge": ("purge", 5, LEAF),
    "restore": ("restore", 5, LEAF, IMAGE),
    "epoch_make": ("epoch_make", 5),
    "epoch_list": ("epoch_list", 5),
    "epoch_time": ("epoch_time", 5),
    "quarantined_facts": ("quarantined_facts", 5, LEAF),
    "epoch_move": ("epoch_move", 6, MOVED, 5, LEAF),
}
"""The same, and what goes with it, through the shipped adapter."""

SEALED_ANSWERS = {
    call: "NameExistsError" if call == "epoch_make" else "FencedError"
    for call in ADAPTER
}
"""What the adapter says of an epoch that is sealed, on any storage."""

ADAPTER_ANSWERS: dict[str, tuple[str, str, str, str]] = {
    "quarantine": (DONE, DONE, "FencedError", "FencedError"),
    "purge": (DONE, "NameMissingError", "FencedError", "FencedError"),
    "restore": (DONE, "NameMissingError", "FencedError", "FencedError"),
    "epoch_make": ("NameExistsError", "NameExistsError", DONE, "NameExistsError"),
    "epoch_list": (DONE, DONE, "FencedError", "FencedError"),
    "epoch_time": (DONE, DONE, "FencedError", "FencedError"),
    "quarantined_facts": (DONE, DONE, "FencedError", "FencedError"),
    "epoch_move": ("NameMissingError", DONE, "FencedError", "FencedError"),
}
"""What the adapter says at each stage, on any storage."""

_REMOVES = {"unlink from it, by path", "unlink from it, by descriptor", "purge"}

_NO_END = 100_000
_EARLY = 3
_NAMES = [f"{number:040x}" for number in range(24)]
_LEAVES = [f"{name}.00000000000000cc.5" for name in _NAMES]


def together(*calls: tuple[Remote, str, list[Any]]) -> list[Any]:
    """Make calls of several clients at once; return their answers in order."""
    with ThreadPoolExecutor(len(calls)) as threads:
        waiting = [
            threads.submit(remote.ask, call, *given) for remote, call, given in calls
        ]
        return [future.result() for future in waiting]


class Scene:
    """One cache directory, in which epoch 5 leads and is about to be deposed."""

    def __init__(self, clients: Clients) -> None:
        self.late, self.successor = clients.both
        self.place = uuid.uuid4().hex
        self.late.ask("found", self.place)
        self.successor.ask("enter", self.place)

    def lead(self) -> None:
        """Let the late leader act as epoch 5, and hold everything open."""
        self.must(self.late, "epoch_make", 5)
        self.late.ask("put", IMAGE, "content")
        self.must(self.late, "quarantine", IMAGE, 5, LEAF)
        self.late.ask("put", OTHER, "used")
        self.warm()

    def warm(self) -> None:
        """Give the late leader open descriptors and warm caches."""
        for path in (".", EPOCH):
            self.late.ask("hold", path)
            self.late.ask("warm", path)

    def must(self, client: Remote, call: str, *given: Any) -> Any:
        """Make a call of the adapter that is to succeed."""
        answer, value = client.ask("store", call, *given)
        assert answer == DONE, value
        return value

    def seal_until(self, stage: str) -> None:
        """Let the successor go through the steps of sealing, up to a stage."""
        for step in STAGES[: STAGES.index(stage) + 1]:
            for call, *given in _STEPS[step]:
                self.must(self.successor, call, *given)

    def finish(self, *, make: bool) -> None:
        """Let the successor seal with the shipped steps, whatever slipped in."""
        answer, value = self.successor.ask("take_over", 6, make)
        assert answer == DONE, value
        epochs = self.must(self.successor, "epochs")
        assert epochs == {**dict.fromkeys("12345", True), "6": False}

    def kept(self) -> list[str]:
        """Contents of all files that there are, in the cache or in quarantine."""
        found: list[str] = []
        leaves = self.must(self.successor, "epoch_list", 6)
        self.successor.ask("hold", ".")
        names = self.successor.ask("listing", ".")
        self.successor.ask("drop", ".")
        paths = [name for name in names if name != ".sharedcache"]
        paths += [f".sharedcache/epochs/6/{leaf}" for leaf in leaves]
        for path in paths:
            text = self.successor.ask("read", path)
            if text:
                found.append(text)
        return sorted(found)


class FenceSuite:
    """The whole suite.

    `answers` is what this storage says to system calls, `late_link` what it
    says to a link out of a directory that was removed after it was opened.
    """

    answers: ClassVar[dict[str, tuple[str, str, str, str]]]
    late_link: ClassVar[str]

    @pytest.fixture
    def scene(self, clients: Clients) -> Iterator[Scene]:
        """Give a cache directory of its own to each test."""
        scene = Scene(clients)
        yield scene
        for client in clients.both:
            client.ask("leave")

    @pytest.mark.parametrize("stage", STAGES)
    @pytest.mark.parametrize("attempt", [*SYSTEM_CALLS, *ADAPTER])
    def test_late_effect(self, scene: Scene, attempt: str, stage: str) -> None:
        """Whatever comes late is refused, or carried on; no file is lost to it.

        Until the directory is removed a late step may come about, and the
        successor finds it; from then on the storage refuses every step but a
        new mkdir, and that one too once the epoch is sealed.
        """
        scene.lead()
        scene.seal_until(stage)
        if attempt in SYSTEM_CALLS:
            answer = scene.late.ask("system", *SYSTEM_CALLS[attempt])
            expected = self.answers[attempt]
        else:
            answer = scene.late.ask("store", *ADAPTER[attempt])[0]
            expected = ADAPTER_ANSWERS[attempt]
        assert answer == expected[STAGES.index(stage)], (answer, expected)
        if stage != SEALED:
            scene.finish(make=stage == BEFORE)
        removed = attempt in _REMOVES and answer == DONE
        kept = set(scene.kept())
        assert kept == ({"used"} if removed else {"content", "used"}), kept
        self._refused(scene)

    @staticmethod
    def _refused(scene: Scene) -> None:
        """Nothing is left that a deposed leader could do."""
        answers = scene.late.ask("all_of", list(ADAPTER.values()))
        assert dict(zip(ADAPTER, answers, strict=True)) == SEALED_ANSWERS

    def test_renamed_directory_is_no_fence(self, scene: Scene) -> None:
        """Why the directory is removed: an open descriptor follows a rename."""
        scene.lead()
        sealed = f"{EPOCH}.sealed"
        assert scene.successor.ask("system", "rename", EPOCH, sealed) == DONE
        late = SYSTEM_CALLS["rename into it, by descriptor"]
        assert scene.late.ask("system", *late) == DONE
        assert scene.successor.ask("read", f"{sealed}/{SECOND}") == "used"

    @pytest.mark.parametrize("stage", [REMOVED, SEALED])
    @pytest.mark.parametrize("call", ["quarantine", "purge", "restore", "epoch_move"])
    def test_fence_in_the_middle_of_a_call(
        self, scene: Scene, call: str, stage: str
    ) -> None:
        """A leader that stops between opening its epoch and acting is fenced too.

        Whatever number the storage gives for it, it must not be taken for a
        missing entry.  The one exception takes no name away: a network's
        client links a file that it has open in its cache by the file's own
        handle, wherever that lies now.
        """
        system = {"purge": "unlink", "restore": "link"}.get(call, "rename")
        scene.lead()
        given = ADAPTER[call]
        if call == "epoch_move":
            # What it takes over from the epoch before its own.
            scene.must(scene.late, "epoch_make", 4)
            scene.late.ask("put", f".sharedcache/epochs/4/{SECOND}", "older")
            given = ("epoch_move", 4, SECOND, 5, SECOND)
        scene.late.ask("stop_before", system, "store", list(given))
        scene.seal_until(stage)
        answer = scene.late.ask("go_on")[0]
        linked = call == "restore" and self.late_link == DONE
        assert answer == (DONE if linked else "FencedError"), answer
        kept = scene.successor.ask("read", f".sharedcache/epochs/6/{MOVED}")
        assert kept == "content"
        assert scene.successor.ask("read", IMAGE) == ("content" if linked else None)
        assert scene.successor.ask("read", OTHER) == "used"

    def test_directory_made_again(self, scene: Scene) -> None:
        """A leader that makes its directory again before the seal gains nothing.

        Its mkdir comes between the successor's rmdir and seal; what it renames
        there is carried on, and then it is refused.
        """
        scene.lead()
        scene.seal_until(REMOVED)
        again = [["epoch_make", 5], ["quarantine", OTHER, 5, SECOND]]
        assert scene.late.ask("all_of", again) == [DONE, DONE]
        scene.finish(make=False)
        assert scene.kept() == ["content", "used"]
        self._refused(scene)

    def test_epoch_that_never_made_its_directory(self, scene: Scene) -> None:
        """Sealed by the file alone, a claimed epoch can never begin to act."""
        scene.late.ask("put", OTHER, "used")
        scene.late.ask("warm", ".sharedcache/epochs")
        scene.finish(make=True)
        assert scene.kept() == ["used"]
        calls = [list(call) for name, call in ADAPTER.items() if name != "epoch_move"]
        answers = scene.late.ask("all_of", calls)
        assert set(answers) == {"FencedError", "NameExistsError"}
        assert scene.kept() == ["used"]

    def test_two_leaders_seal_one_epoch_at_once(self, scene: Scene) -> None:
        """Epochs 6 and 7 both seal 5: each entry ends in 7, once, and 6 is sealed.

        Epoch 6 does not know that it is deposed, and goes on to the end.
        """
        self._two_leaders(scene)
        late, successor = together(
            (scene.late, "take_over", [6, False]),
            (scene.successor, "take_over", [7, True]),
        )
        self._one_seal(scene, late, successor)

    @pytest.mark.parametrize("step", ["rename", "rmdir"])
    def test_epoch_sealed_by_another_in_the_middle(
        self, scene: Scene, step: str
    ) -> None:
        """A leader whose predecessor seals the epoch first goes on in its office.

        What is refused there is about the lower epoch, not about its own.
        """
        self._two_leaders(scene)
        scene.successor.ask("stop_before", step, "take_over", [7, True])
        late = scene.late.ask("take_over", 6, False)
        self._one_seal(scene, late, scene.successor.ask("go_on"))

    @pytest.mark.parametrize("step", ["rename", "rmdir"])
    def test_deposed_in_the_middle_of_sealing(self, scene: Scene, step: str) -> None:
        """A leader that stops while it seals, and wakes deposed, changes nothing."""
        self._two_leaders(scene)
        scene.late.ask("stop_before", step, "take_over", [6, False])
        successor = scene.successor.ask("take_over", 7, True)
        self._one_seal(scene, scene.late.ask("go_on"), successor)

    @staticmethod
    def _two_leaders(scene: Scene) -> None:
        scene.must(scene.late, "epoch_make", 5)
        for name, leaf in zip(_NAMES, _LEAVES, strict=True):
            scene.late.ask("put", f"{EPOCH}/{leaf}", name)
        scene.must(scene.late, "epoch_make", 6)

    @staticmethod
    def _one_seal(scene: Scene, late: list[Any], successor: list[Any]) -> None:
        assert successor[0] == DONE, successor
        # It finished before it was deposed, or the storage stopped it.
        assert late[0] in {DONE, "FencedError"}, late
        sealed = {**dict.fromkeys("123456", True), "7": False}
        leaves = [leaf.removesuffix("5") + "7" for leaf in _LEAVES]
        for client in (scene.successor, scene.late):
            assert scene.must(client, "epochs") == sealed
            assert scene.must(client, "epoch_list", 7) == leaves
        paths = [f".sharedcache/epochs/7/{leaf}" for leaf in leaves]
        assert [scene.successor.ask("read", path) for path in paths] == _NAMES

    def test_leader_deposed_while_it_quarantines(self, scene: Scene) -> None:
        """It takes file after file until it is refused: each is moved on.

        The successor seals with a leader at work that never stops by itself.
        """
        scene.must(scene.late, "epoch_make", 5)
        (leaves, answer), taken = together(
            (scene.late, "take_until_refused", [5, _NO_END]),
            (scene.successor, "take_over", [6, True]),
        )
        assert taken[0] == DONE, taken
        assert answer == "FencedError", answer
        moved = [leaf.removesuffix("5") + "6" for leaf in leaves]
        assert scene.must(scene.successor, "epoch_list", 6) == moved
        # The last one was written, refused, and is where it was.
        names = [leaf.partition(".")[0] for leaf in leaves]
        assert scene.kept() == [*names, f"{len(leaves):040x}"]
        self._refused(scene)

    def test_leader_deposed_while_it_purges(self, scene: Scene) -> None:
        """It unlinks entry after entry while it is sealed: each goes, or is moved on.

        What it was told is gone is gone, and nothing else is.
        """
        scene.must(scene.late, "epoch_make", 5)
        for name, leaf in zip(_NAMES, _LEAVES, strict=True):
            scene.late.ask("put", f"{EPOCH}/{leaf}", name)
        calls = [["purge", 5, leaf] for leaf in reversed(_LEAVES)]
        first = scene.late.ask("all_of", calls[:_EARLY])
        rest, taken = together(
            (scene.late, "all_of", [calls[_EARLY:]]),
            (scene.successor, "take_over", [6, True]),
        )
        assert taken[0] == DONE, taken
        answers = first + rest
        assert set(answers) <= {DONE, "NameMissingError", "FencedError"}
        gone = {
            name
            for name, answer in zip(reversed(_NAMES), answers, strict=True)
            if answer == DONE
        }
        assert scene.kept() == sorted(set(_NAMES) - gone)
        self._refused(scene)

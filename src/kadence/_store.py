"""Store: finished trials as rows of one SQLite file, and claims on the trials that some process is at.

A row is written in one transaction under the key of its trial, so it is there whole or not at all, and never twice,
whatever was killed. A claim only keeps two processes from doing the same work: it ends with its process, or runs out.
"""

import contextlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kadence import _checks
from kadence._trials import Outcome, Trial

#: "KADE" as a number, in the header of the file.
_APPLICATION_ID = 0x4B414445
_VERSION = 1
#: Seconds after which a claim that nobody renews is free. A process that is killed here is noticed at once.
_LEASE = 60.0
#: Seconds to wait for another process that makes the file at the same time.
_PATIENCE = 10.0
#: Seconds that SQLite waits for another process that writes.
_TIMEOUT = 60.0

_SCHEMA = f"""
CREATE TABLE trials (
  key TEXT PRIMARY KEY,
  strategy TEXT NOT NULL,
  rate REAL NOT NULL,
  seed INTEGER NOT NULL,
  phase TEXT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  validation REAL,
  test REAL,
  seconds REAL NOT NULL,
  trial TEXT NOT NULL,
  outcome TEXT NOT NULL,
  finished TEXT NOT NULL
);
CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""


class Store:
    """The finished trials of comparisons; for use in a `with` statement.

    Args:
        path: The file, which is made if it is not there; None for a store in memory.

    Raises:
        ValueError: If the file is not a store, is broken, or is of another version; it is left as it is.
        TypeError: If `path` is no path.
    """

    def __init__(self, path: str | os.PathLike[str] | None):
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(_checks.sentence("store", "be the path of a file, or None", path))
        self.path = None if path is None else Path(path)
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._closed = threading.Event()
        if self.path is not None:
            _check_file(self.path)
        with _errors(self.path):
            self._database = sqlite3.connect(
                self.path or ":memory:", timeout=_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def _prepare(self) -> None:
        if self.path is not None:
            self._use_log()
        with self._transaction():
            if not self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.strip().split(";\n"):
                    self._database.execute(statement)

    def _use_log(self) -> None:
        """Write through a log. Two processes may ask for it at once: SQLite then fails without waiting."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
            time.sleep(0.02)

    def __enter__(self) -> "Store":
        self._heart.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._heart.join()
        with contextlib.suppress(ValueError), self._transaction():
            self._database.execute("DELETE FROM claims WHERE owner = ?", [self.owner])
        self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        """What is done inside is done whole, and no other process writes meanwhile."""
        with self._lock, _errors(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                if self._database.in_transaction:  # a full disk has ended it already
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _beat(self) -> None:
        while not self._closed.wait(_LEASE / 6):
            with contextlib.suppress(ValueError), self._transaction() as database:
                database.execute("UPDATE claims SET expires = ? WHERE owner = ?", [time.time() + _LEASE, self.owner])

    def claim(self, trials: Iterable[Trial]) -> Trial | None:
        """The first of the trials that is not finished and that no living process is at; it is then ours.

        Args:
            trials: The trials.

        Returns:
            `Trial` or None.
        """
        with self._transaction() as database:
            for trial in trials:
                if database.execute("SELECT 1 FROM trials WHERE key = ?", [trial.key]).fetchone():
                    continue
                held = database.execute("SELECT owner, expires FROM claims WHERE key = ?", [trial.key]).fetchone()
                if held is None or held[1] < time.time() or not _may_live(held[0]):
                    claim = [trial.key, self.owner, time.time() + _LEASE]
                    database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", claim)
                    return trial
        return None

    def finish(self, trial: Trial, outcome: Outcome) -> None:
        """Write the row of a trial, if there is none, and give up the claim.

        Args:
            trial: The trial.
            outcome: What came of it.
        """
        row = [trial.key, trial.strategy.name, trial.rate, trial.seed, trial.phase, outcome.status, outcome.reason]
        row += [outcome.validation, outcome.test, outcome.seconds, trial.to_json(), outcome.to_json()]
        with self._transaction() as database:
            places = ", ".join("?" * len(row))
            database.execute(f"INSERT OR IGNORE INTO trials VALUES ({places}, datetime('now'))", row)  # noqa: S608
            database.execute("DELETE FROM claims WHERE key = ?", [trial.key])

    def forget_failed(self, trials: Iterable[Trial]) -> None:
        """Remove the rows of those of the trials that failed, so that they are tried again.

        Args:
            trials: The trials.
        """
        with self._transaction() as database:
            for trial in trials:
                database.execute("DELETE FROM trials WHERE key = ? AND status = 'failed'", [trial.key])

    def outcomes(self, trials: Iterable[Trial]) -> dict[str, Outcome]:
        """Key -> outcome of those of the trials that are finished.

        Args:
            trials: The trials.

        Returns:
            Dict.
        """
        found = {}
        with self._lock, _errors(self.path):
            for trial in trials:
                row = self._database.execute("SELECT outcome FROM trials WHERE key = ?", [trial.key]).fetchone()
                if row is not None:
                    found[trial.key] = Outcome.from_json(row[0])
        return found


def _check_file(path: Path) -> None:
    """Raise unless there is nothing at the path, or a whole store of this version; read only."""
    if not path.exists():
        if not path.parent.is_dir():
            raise ValueError(_checks.sentence("store", "be in a folder that exists", str(path)))
        return
    if not path.is_file():
        raise ValueError(_checks.sentence("store", "be a file", str(path)))
    # Without a log beside it no process is at it, and it can be read without making one.
    alone = not path.with_name(path.name + "-wal").exists()
    address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    with _errors(path), contextlib.closing(sqlite3.connect(address, uri=True)) as file:
        (application,), (stored,) = (
            file.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        n_tables = file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not n_tables and not application and not stored:
            return
        if application != _APPLICATION_ID:
            raise ValueError(_checks.sentence("store", "be a store of trials", str(path), "It is another database."))
        if stored != _VERSION:
            remedy = f"It is of version {stored}; this Kadence reads version {_VERSION}. Take another file."
            raise ValueError(_checks.sentence("store", "be of this version", str(path), remedy))
        (health,) = file.execute("PRAGMA quick_check(1)").fetchone()
        if health != "ok":
            raise sqlite3.DatabaseError(health)


@contextlib.contextmanager
def _errors(path: Path | None) -> Iterator[None]:
    """Say what SQLite says in one sentence."""
    try:
        yield
    except sqlite3.Error as error:
        rule, remedy = _REMEDIES.get(_code(error), ("be a store of trials that is whole", "take another one"))
        remedy = f"SQLite says: {_checks.said(error)}. The file is left as it is; {remedy}."
        raise ValueError(_checks.sentence("store", rule, str(path), remedy)) from error


def _code(error: sqlite3.Error) -> int:
    """The kind of an error, without its details."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


_WRITABLE = "be a file that can be written"
#: Errors that are not those of the content: the rule, and what to do.
_REMEDIES = {
    sqlite3.SQLITE_BUSY: ("be free within a minute", "another process holds it: try again when that has ended"),
    sqlite3.SQLITE_FULL: (_WRITABLE, "make room on the disk, and repeat the call"),
    sqlite3.SQLITE_READONLY: (_WRITABLE, "change its permissions, or take another one"),
    sqlite3.SQLITE_CANTOPEN: (_WRITABLE, "change the permissions of its folder, or take another one"),
}


def _may_live(owner: str) -> bool:
    """Whether the process that made a claim may be there: on another machine it may, here we know."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname() or os.name == "nt":  # Windows takes the signal 0 for Ctrl-C
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError, ValueError):
        return True
    return True

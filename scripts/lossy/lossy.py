#!/usr/bin/env python3
"""A file system that forgets what was not synced, to show that an acknowledged message is on disk and not in a cache.

    lossy.py BACKING MOUNTPOINT CONTROL

Files live in BACKING as they look to programs; for everything that is not durable yet this keeps how to undo it. A power cut
undoes it. CONTROL is a Unix socket that takes one order per line and answers with counters as JSON:

    freeze N                   the N-th write or sync from now on (1: the next) hangs until the power goes: what was written for
                               it is not durable yet and nobody has been told anything
    cut all|torn|random SEED   the power goes: nothing of what was not synced is left; or a beginning of it, the last write cut
                               short; or any of its pages. Whatever changes the disk fails until the power is back.
    on                         the power is back, and so is a healthy disk
    fail-sync N keep|drop      the next N syncs of files fail with EIO, and what they were to write never becomes durable: it can
                               still be read until the power goes (keep) or is gone at once (drop). Linux does either.
    full on|off                writes that need room fail with ENOSPC
    slow-sync MS               every sync takes this much longer; 0 for none
    fail-reads on|off          reads of files fail with EIO
    count                      nothing

Content is durable after fsync, fdatasync, or a write to a file opened with O_SYNC or O_DSYNC. Names (create, mkdir, rename,
unlink, rmdir) are durable after a sync of their folder, a new file's also after a sync of the file itself, a new folder's after
a sync of anything in it. After a cut the names that survive are a beginning of the changes, as on a file system with a
journal. Kill programs before a cut; they end after it when they wait for the disk, and before the power is back.
Needs libfuse 3 and the package mfusepy.
"""
import errno
import json
import os
import random
import socket
import sys
import threading

from mfusepy import FUSE, FuseOSError, Operations

PAGE = 4096


class Change:
    """One write or one new length of a file: what it replaced and what it put there."""

    def __init__(self, number, offset, before, after, length_before, length_after):
        self.number, self.offset, self.before, self.after = number, offset, before, after
        self.length_before, self.length_after = length_before, length_after
        self.state = "pending"

    def undo(self, fd):
        os.ftruncate(fd, self.length_before)
        put(fd, self.before, self.offset)

    def redo(self, fd):
        if self.after is None:
            os.ftruncate(fd, self.length_after)
        else:
            put(fd, self.after, self.offset)

    def redo_some_pages(self, fd, chance):
        if self.after is None:
            if chance.random() < 0.5:
                os.ftruncate(fd, self.length_after)
            return
        at, end = self.offset, self.offset + len(self.after)
        while at < end:
            upto = min(end, (at // PAGE + 1) * PAGE)
            if chance.random() < 0.5:
                put(fd, self.after[at - self.offset:upto - self.offset], at)
            at = upto


def put(fd, data, offset):
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


class Inode:
    """A file with changes that are not durable, and a descriptor of its own to undo them by."""

    def __init__(self, fd):
        self.fd, self.changes = fd, []


class Name:
    """A change of a name: the folders that must be synced for it to last, the file or folder it makes or the folder it removes, and
    how to undo it."""

    def __init__(self, folders, inode, made, removed, undo):
        self.folders, self.inode, self.made, self.removed, self.undo = set(folders), inode, made, removed, undo

    def lasts(self, path):
        """A sync of what lies at `path` makes the folders that lead there last."""
        return self.made is not None and (path + "/").startswith(self.made + "/")


class Lossy(Operations):
    use_ns = True

    def __init__(self, backing, control):
        self.root = os.path.realpath(backing)
        self.trash = self.root + ".trash"
        os.makedirs(self.trash, exist_ok=True)
        self.guard = threading.RLock()
        self.power = threading.Condition(self.guard)
        self.frozen, self.freeze_after, self.dead = False, None, False
        self.inodes, self.names, self.flags = {}, [], {}
        self.number, self.trashed = 0, 0
        self.syncs_to_fail, self.failed_sync_keeps, self.full = 0, True, False
        self.sync_seconds, self.reads_fail = 0.0, False
        counted = "writes syncs cuts undone_writes undone_bytes undone_names failed failed_reads"
        self.counters = dict.fromkeys(counted.split(), 0)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(control)
        listener.listen()
        threading.Thread(target=self.listen, args=(listener,), daemon=True).start()

    # ---- orders ------------------------------------------------------------------------------------------------------------
    def listen(self, listener):
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as stream:
                try:
                    with self.guard:
                        self.obey(stream.readline().split())
                        answer = {**self.counters, "frozen": self.frozen}
                except Exception as error:  # the one who ordered is to know, whatever it is
                    answer = {"error": repr(error)}
                stream.write(json.dumps(answer) + "\n")

    def obey(self, words):
        match words:
            case ["cut", ("all" | "torn" | "random") as how, seed]:
                self.cut(how, random.Random(int(seed)))
            case ["freeze", count]:
                self.freeze_after = int(count)
            case ["on"]:
                self.full, self.syncs_to_fail, self.dead = False, 0, False
                self.sync_seconds, self.reads_fail = 0.0, False
            case ["fail-sync", count, ("keep" | "drop") as what]:
                self.syncs_to_fail, self.failed_sync_keeps = int(count), what == "keep"
            case ["full", ("on" | "off") as what]:
                self.full = what == "on"
            case ["slow-sync", milliseconds]:
                self.sync_seconds = int(milliseconds) / 1000
            case ["fail-reads", ("on" | "off") as what]:
                self.reads_fail = what == "on"
            case ["count"]:
                pass
            case _:
                raise ValueError(f"no such order: {words}")

    def cut(self, how, chance):
        self.counters["cuts"] += 1
        pending = [change for inode in self.inodes.values() for change in inode.changes if change.state == "pending"]
        numbers = sorted(change.number for change in pending)
        last = chance.choice(numbers) if numbers and how == "torn" else 0
        for inode in self.inodes.values():
            for change in reversed(inode.changes):
                change.undo(inode.fd)
            for change in inode.changes:
                survives = change.state == "durable" or (how == "torn" and change.state == "pending" and change.number < last)
                if survives:
                    change.redo(inode.fd)
                    continue
                self.counters["undone_writes"] += 1
                self.counters["undone_bytes"] += len(change.after or b"")
                if how == "torn" and change.number == last and change.after:
                    put(inode.fd, change.after[:chance.randrange(len(change.after))], change.offset)
                elif how == "random" and change.state == "pending":
                    change.redo_some_pages(inode.fd, chance)
            os.close(inode.fd)
        self.inodes.clear()
        kept = 0 if how == "all" else chance.randrange(len(self.names) + 1)
        for name in reversed(self.names[kept:]):
            name.undo()
            self.counters["undone_names"] += 1
        self.forget_names()
        # What was removed while it was open keeps a name here; on a disk that lost its power it has none.
        for folder, _, files in os.walk(self.path("/")):
            for name in files:
                if name.startswith(".fuse_hidden"):
                    os.unlink(os.path.join(folder, name))
        self.freeze_after, self.dead = None, True
        self.power.notify_all()

    def alive(self):
        """Before anything that changes the disk."""
        if self.dead:
            raise FuseOSError(errno.EIO)

    def step(self):
        """Before a write or a sync: the place where the power may go."""
        self.alive()
        if self.freeze_after is not None:
            self.freeze_after -= 1
            if self.freeze_after <= 0:
                self.frozen = True
                self.power.wait_for(lambda: self.dead)
                self.frozen = False
                self.alive()

    # ---- content -----------------------------------------------------------------------------------------------------------
    def inode(self, fd):
        key = os.fstat(fd).st_ino
        if key not in self.inodes:
            self.inodes[key] = Inode(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
        return self.inodes[key]

    def change(self, fd, offset, after, length_after):
        inode = self.inode(fd)
        length = os.fstat(fd).st_size
        if after is None:
            before = os.pread(inode.fd, max(0, length - length_after), length_after)
            offset = length_after
        else:
            before = os.pread(inode.fd, len(after), offset)
        self.number += 1
        change = Change(self.number, offset, before, after, length, length_after)
        change.redo(inode.fd)
        inode.changes.append(change)

    def room(self, fd, offset, length):
        """A disk without room still takes what overwrites blocks that a file has."""
        if not self.full:
            return
        try:
            has = os.lseek(fd, offset, os.SEEK_HOLE) >= offset + length
        except OSError:
            has = False
        if not has:
            self.counters["failed"] += 1
            raise FuseOSError(errno.ENOSPC)

    def sync(self, fd, path):
        self.step()
        if self.sync_seconds:
            # Lets go of the guard: whoever has an order is heard meanwhile.
            self.power.wait_for(lambda: self.dead, self.sync_seconds)
            self.alive()
        self.counters["syncs"] += 1
        key = os.fstat(fd).st_ino
        inode = self.inodes.get(key)
        # A sync without anything to write does not notice a bad disk.
        dirty = inode and any(change.state == "pending" for change in inode.changes)
        if self.syncs_to_fail and dirty:
            self.syncs_to_fail -= 1
            self.counters["failed"] += 1
            self.fail_sync(inode)
            raise FuseOSError(errno.EIO)
        if inode:
            for change in inode.changes:
                if change.state == "pending":
                    change.state = "durable"
            if all(change.state == "durable" for change in inode.changes):
                os.close(inode.fd)
                del self.inodes[key]
        self.names = [name for name in self.names if name.inode != key and not name.lasts(path)]

    def fail_sync(self, inode):
        if self.failed_sync_keeps:
            for change in inode.changes:
                if change.state == "pending":
                    change.state = "never"
            return
        for change in reversed(inode.changes):
            change.undo(inode.fd)
        inode.changes = [change for change in inode.changes if change.state == "durable"]
        for change in inode.changes:
            change.redo(inode.fd)

    def path(self, path):
        return self.root + path

    def opened(self, path, flags, mode=0o644):
        access = os.O_RDONLY if flags & os.O_ACCMODE == os.O_RDONLY else os.O_RDWR
        fd = os.open(self.path(path), access | flags & (os.O_CREAT | os.O_EXCL), mode)
        self.flags[fd] = flags
        if flags & os.O_TRUNC and access == os.O_RDWR and os.fstat(fd).st_size:
            self.change(fd, 0, None, 0)
        return fd

    def open(self, path, flags):
        return self.opened(path, flags)

    def create(self, path, mode, fi=None):
        self.alive()
        new = not os.path.lexists(self.path(path))
        if new and self.full:
            self.counters["failed"] += 1
            raise FuseOSError(errno.ENOSPC)
        fd = self.opened(path, os.O_RDWR | os.O_CREAT | (0 if new else os.O_TRUNC), mode)
        if new:
            self.name([path], lambda: os.unlink(self.path(path)), inode=os.fstat(fd).st_ino)
        return fd

    def read(self, path, size, offset, fh):
        if self.reads_fail:
            self.counters["failed_reads"] += 1
            raise FuseOSError(errno.EIO)
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        self.step()
        self.counters["writes"] += 1
        if self.flags[fh] & os.O_APPEND:
            offset = os.fstat(fh).st_size
        data = bytes(data)
        self.room(fh, offset, len(data))
        self.change(fh, offset, data, max(os.fstat(fh).st_size, offset + len(data)))
        if self.flags[fh] & (os.O_SYNC | os.O_DSYNC):
            self.sync(fh, path)
        return len(data)

    def truncate(self, path, length, fh=None):
        self.alive()
        fd = os.open(self.path(path), os.O_RDWR) if fh is None else fh
        try:
            self.change(fd, 0, None, length)
        finally:
            if fh is None:
                os.close(fd)
        return 0

    def fsync(self, path, datasync, fh):
        self.sync(fh, path)
        return 0

    def flush(self, path, fh):
        return 0

    def release(self, path, fh):
        self.flags.pop(fh, None)
        os.close(fh)
        return 0

    # ---- names -------------------------------------------------------------------------------------------------------------
    def name(self, paths, undo, inode=None, made=None, removed=None):
        self.names.append(Name([os.path.dirname(path) for path in paths], inode, made, removed, undo))

    def fsyncdir(self, path, datasync, fh):
        self.step()
        self.counters["syncs"] += 1
        folder = path.rstrip("/") or "/"
        pending, gone = [], set()
        for name in reversed(self.names):
            # What was changed in a folder before it was removed for good cannot come back.
            lasts = folder in name.folders or name.lasts(folder) or bool(gone & name.folders)
            if not lasts:
                pending.append(name)
            elif name.removed:
                gone.add(name.removed)
        self.names = pending[::-1]
        if not self.names:
            self.forget_names()
        return 0

    def forget_names(self):
        self.names = []
        for entry in os.scandir(self.trash):
            os.unlink(entry.path)

    def keep(self, path):
        """Keeps a file whose name is about to go; answers how it comes back."""
        self.trashed += 1
        kept = f"{self.trash}/{self.trashed}"
        os.link(self.path(path), kept, follow_symlinks=False)
        return lambda: os.rename(kept, self.path(path))

    def unlink(self, path):
        self.alive()
        back = self.keep(path)
        os.unlink(self.path(path))
        self.name([path], back)
        return 0

    def rename(self, old, new, flags=0):
        self.alive()
        back = self.keep(new) if os.path.isfile(self.path(new)) else None
        os.rename(self.path(old), self.path(new))

        def undo():
            os.rename(self.path(new), self.path(old))
            if back:
                back()

        self.name([old, new], undo)
        return 0

    def mkdir(self, path, mode):
        self.alive()
        if self.full:
            self.counters["failed"] += 1
            raise FuseOSError(errno.ENOSPC)
        os.mkdir(self.path(path), mode)
        self.name([path], lambda: os.rmdir(self.path(path)), made=path)
        return 0

    def rmdir(self, path):
        self.alive()
        mode = os.stat(self.path(path)).st_mode & 0o7777
        os.rmdir(self.path(path))
        # The folder may have been made again, and that be durable.
        back = lambda: os.path.isdir(self.path(path)) or os.mkdir(self.path(path), mode)
        self.name([path], back, removed=path)
        return 0

    # ---- the rest ----------------------------------------------------------------------------------------------------------
    def getattr(self, path, fh=None):
        status = os.lstat(self.path(path))
        fields = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")
        times = {"st_atime": status.st_atime_ns, "st_mtime": status.st_mtime_ns, "st_ctime": status.st_ctime_ns}
        return {**{field: getattr(status, field) for field in fields}, **times}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.path(path))]

    def chmod(self, path, mode):
        os.chmod(self.path(path), mode)
        return 0

    def chown(self, path, uid, gid):
        os.chown(self.path(path), uid, gid)
        return 0

    def utimens(self, path, times=None):
        os.utime(self.path(path), ns=times)
        return 0

    def statfs(self, path):
        status = os.statvfs(self.root)
        fields = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_flag", "f_namemax")
        room = {field: getattr(status, field) for field in fields}
        return {**room, "f_bfree": 0, "f_bavail": 0} if self.full else room


def guarded(operation):
    """One operation or order at a time, and the system's own error numbers for what fails."""

    def run(self, *arguments):
        with self.guard:
            try:
                return operation(self, *arguments)
            except FuseOSError:
                raise
            except OSError as error:
                raise FuseOSError(error.errno) from error

    return run


OPERATIONS = (
    "open create read write truncate fsync flush release fsyncdir unlink rename mkdir rmdir getattr readdir chmod chown utimens statfs"
)
for operation in OPERATIONS.split():
    setattr(Lossy, operation, guarded(getattr(Lossy, operation)))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    backing, mountpoint, control = sys.argv[1:]
    FUSE(Lossy(backing, control), mountpoint, foreground=True, nothreads=True, attr_timeout=0, entry_timeout=0, fsname="lossy")


if __name__ == "__main__":
    main()

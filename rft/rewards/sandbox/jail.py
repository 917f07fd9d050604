"""Builds the sandbox and runs one program in it. A process of its own, started by :mod:`rft.rewards.sandbox.run`.

It imports nothing of ours and no package. The file descriptor in its first argument holds the specification as JSON,
that in its second takes one line about the end: ``exit <code>``, ``signal <number>``, ``memory`` or ``setup <error>``.

With namespaces there are three processes. The outer one makes the namespaces. The first process of the new PID
namespace builds the file system, watches the memory, and reaps; when it ends, the kernel kills all others in the
namespace, so nothing is left behind. The third is the program: without a capability, behind a filter of system calls.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from typing import Any, NoReturn

NOBODY = 65534
INNER_ID = 1000
WATCH_S = 0.05

ROOT = "/tmp"
"""Where the new root is built, in a namespace of mounts of its own: it hides only our own view of what was there."""
CLONE_NEWNS = 0x00020000
CLONE_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""Namespaces of mounts, cgroups, UTS, IPC, users, PIDs and network."""
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38

DENIED = {
    "x86_64": (
        0xC000003E,
        "101 310 311 165 166 155 161 272 308 321 298 248 249 250 323 425 426 427 175 313 176 246 "
        "320 304 430 431 432 433 428 429 442 167 169 163 179 312 438",
        {"clone": 56, "clone3": 435, "socket": 41},
    ),
    "aarch64": (
        0xC00000B7,
        "117 270 271 40 39 41 51 97 268 280 241 217 218 219 282 425 426 427 105 273 106 104 "
        "294 265 430 431 432 433 428 429 442 224 142 89 60 272 438",
        {"clone": 220, "clone3": 435, "socket": 198},
    ),
}
"""By machine: its audit architecture, the numbers of denied system calls, and those that are looked into.

Denied are ptrace, process_vm_readv and _writev, mount, umount2, pivot_root, chroot, unshare, setns, bpf,
perf_event_open, add_key, request_key, keyctl, userfaultfd, io_uring_*, loading of modules and kernels,
open_by_handle_at, fsopen, fsconfig, fsmount, fspick, open_tree, move_mount, mount_setattr, swapon, reboot, acct,
quotactl, kcmp and pidfd_getfd.
"""
AF_UNIX = 1
EPERM, ENOSYS = 1, 38

libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    spec_fd, report_fd = int(sys.argv[1]), int(sys.argv[2])
    with open(spec_fd, encoding="utf-8") as file:
        spec = json.load(file)
    os.set_inheritable(report_fd, False)
    try:
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if spec["isolated"]:
            run_isolated(spec, report_fd)
        else:
            run_limited(spec, report_fd)
    except BaseException as error:
        report(report_fd, f"setup {error}")
    os._exit(0)


def run_isolated(spec: dict[str, Any], report_fd: int) -> None:
    """Run the program in namespaces of its own, and return when its end is reported."""
    was_root = os.geteuid() == 0
    if was_root:
        # Python may lie in root's own folder, so it is bound before the rights to read that are given up.
        call("unshare", CLONE_NEWNS)
        build_root(spec)
    drop_root()
    user, group = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEW)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/gid_map", f"{INNER_ID} {group} 1")
    write("/proc/self/uid_map", f"{INNER_ID} {user} 1")
    go, started = os.pipe()
    if os.fork():
        os.close(go)
        os.write(started, b"g")
        os.wait()
        return
    try:
        os.close(started)
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.read(go, 1) != b"g":  # the outer process has ended before the signal was asked for
            os._exit(0)
        os.close(go)
        if not was_root:
            build_root(spec)
        enter_root(spec)
        forbid_namespaces()
        report(report_fd, run_program(spec, watch_memory=spec["memory_mb"] * 1024 * 1024))
    except BaseException as error:
        report(report_fd, f"setup {error}")
    os._exit(0)


def run_limited(spec: dict[str, Any], report_fd: int) -> None:
    """Run the program with limits only, and end what it leaves behind."""
    drop_root()
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.chdir(spec["folder"])
    write(os.path.join(spec["folder"], "main.py"), spec["code"])
    ended = run_program(spec, watch_memory=None)
    while kill_children():
        time.sleep(0.01)
    report(report_fd, ended)


def run_program(spec: dict[str, Any], *, watch_memory: int | None) -> str:
    """Start the program and return how it ended. In the meantime this process reaps whatever ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    program = os.fork()
    if not program:
        try:
            become_program(spec)
        except BaseException as error:
            os.write(2, f"sandbox: {error}\n".encode())
        os._exit(127)
    page = resource.getpagesize()
    while True:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == program:
                code = os.waitstatus_to_exitcode(ended[1])
                return f"exit {code}" if code >= 0 else f"signal {-code}"
        if watch_memory is not None and resident_pages() * page > watch_memory:
            return "memory"
        signal.sigtimedwait({signal.SIGCHLD}, WATCH_S)


def become_program(spec: dict[str, Any]) -> NoReturn:
    """Give up everything and run Python."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.setsid()
    for limit, value in spec["rlimits"].items():
        resource.setrlimit(getattr(resource, limit), (value, value))
    os.closerange(3, 65536)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    filter_calls(allow_sockets=spec["isolated"])
    # A user that is not root has no capability after this.
    os.execve(spec["argv"][0], spec["argv"], spec["environment"])


def build_root(spec: dict[str, Any]) -> None:
    """Make a root at ``ROOT`` that holds the system's programs, read-only, and a few devices."""
    root = ROOT
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=1024,mode=755")
    for path in spec["read_only"]:
        bind_read_only(path, root + path)
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            bind_read_only(f"/{name}", f"{root}/{name}")
    os.mkdir(f"{root}/dev")
    for name in ("null", "zero", "full", "random", "urandom"):
        if os.path.exists(f"/dev/{name}"):
            write(f"{root}/dev/{name}", "")
            mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    for name in ("proc", "work"):
        os.mkdir(f"{root}/{name}")
    os.symlink("work", f"{root}/tmp")


def enter_root(spec: dict[str, Any]) -> None:
    """Add a new /proc and one writable folder to the root, and leave the old one for good."""
    root = ROOT
    # What another namespace has mounted cannot become the root; a copy of it can.
    mount(root, root, None, MS_BIND | MS_REC)
    os.chdir(root)
    try:
        mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        spec["no_proc"] = True  # in a container that hides parts of its own /proc; Python runs without
    size = f"size={spec['files_mb']}m,nr_inodes=4096,mode=700,uid={INNER_ID},gid={INNER_ID}"
    mount("tmpfs", f"{root}/work", "tmpfs", MS_NOSUID | MS_NODEV, size)
    write(f"{root}/work/main.py", spec["code"])
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/work")


def bind_read_only(source: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    mount(source, target, None, MS_BIND | MS_REC)
    kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def forbid_namespaces() -> None:
    """Let nothing in here make a user namespace: in it, the program would have capabilities again."""
    try:
        write("/proc/sys/user/max_user_namespaces", "0")
    except OSError:
        return  # without /proc; the filter of system calls forbids it, too


def drop_root() -> None:
    """Become nobody: root has no limit on its processes."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # or the maps of the namespace would be root's to write
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of the user clears it


def filter_calls(*, allow_sockets: bool) -> None:
    """Deny system calls by a seccomp filter. Raises OSError on a machine whose numbers are not known."""
    machine = os.uname().machine
    if machine not in DENIED:
        raise OSError(f"no filter of system calls for {machine}")
    architecture, denied, inspected = DENIED[machine]
    load, jump_equal, jump_more, jump_any, give = 0x20, 0x15, 0x35, 0x45, 0x06
    deny, absent, kill, allow = 0x00050000 | EPERM, 0x00050000 | ENOSYS, 0x80000000, 0x7FFF0000
    code = [(load, 0, 0, 4), (jump_equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    code += [(jump_more, 0, 1, 0x40000000), (give, 0, 0, deny)]  # the other set of numbers of x86-64
    for number in map(int, denied.split()):
        code += [(jump_equal, 0, 1, number), (give, 0, 0, deny)]
    code += [(jump_equal, 0, 1, inspected["clone3"]), (give, 0, 0, absent)]  # its flags cannot be seen: clone's can
    code += [(jump_equal, 0, 4, inspected["clone"]), (load, 0, 0, 16), (jump_any, 0, 1, CLONE_NEW)]
    code += [(give, 0, 0, deny), (give, 0, 0, allow)]
    if not allow_sockets:
        code += [(jump_equal, 0, 4, inspected["socket"]), (load, 0, 0, 16), (jump_equal, 1, 0, AF_UNIX)]
        code += [(give, 0, 0, deny), (give, 0, 0, allow)]
    code += [(give, 0, 0, allow)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    call("prctl", PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0)


def resident_pages() -> int:
    """Return the resident memory of all processes here but this one, in pages; 0 without /proc."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/statm") as file:
                    total += int(file.read().split()[1])
            except (OSError, IndexError, ValueError):
                continue
    return total


def kill_children() -> int:
    """Kill the processes whose parent is this one, and return how many there were."""
    found = 0
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            if name.isdigit() and parent == os.getpid():
                os.kill(int(name), signal.SIGKILL)
                found += 1
        except (OSError, IndexError, ValueError):
            continue
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return 0
    return found


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])


def call(name: str, *arguments: Any) -> None:
    """Call a function of libc. Raises OSError that names it."""
    if name == "pivot_root":
        numbers = {"x86_64": 155, "aarch64": 41}
        result = libc.syscall(numbers[os.uname().machine], *arguments)
    else:
        result = getattr(libc, name)(*arguments)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments!r}: {os.strerror(number)}")


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)


def report(fd: int, text: str) -> None:
    os.write(fd, text.encode("utf-8", "replace")[:2000])


if __name__ == "__main__":
    main()

"""Programs of others that a script needs: each is installed by apt-get if it is missing and the user
is root. Otherwise the script says so aloud, and ends."""

import os
import shutil
import subprocess
import sys


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(0)


def fail(reason):
    print(f"FAILED: {reason}")
    sys.exit(1)


def install(program, package):
    """Returns the path of a program, which it installs if need be."""
    path = os.environ["PATH"] + ":/usr/sbin"
    if found := shutil.which(program, path=path):
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        skip(f"{program} is missing: apt-get install {package}")
    print(f"installing {package}")
    # A run level at which the package starts no service.
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        done = subprocess.run(["apt-get", *arguments], env=quiet, capture_output=True, text=True)
        if done.returncode != 0:
            skip(f"apt-get {arguments[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return shutil.which(program, path=path) or skip(f"{package} brought no {program}")

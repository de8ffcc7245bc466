"""The browser that the tests drive."""

import shutil
import subprocess
import sys

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_CHROMIUM = "apt-get update && apt-get install -y --no-install-recommends chromium"


def find_chromium(may_install):
    for name in CHROMIUM_NAMES:
        if found := shutil.which(name):
            return found
    if may_install and sys.platform == "linux" and shutil.which("apt-get"):
        subprocess.run(["sh", "-c", INSTALL_CHROMIUM], check=False, stdout=subprocess.DEVNULL)
        if found := shutil.which("chromium"):
            return found
    pytest.skip(f"no chromium; install it with: {INSTALL_CHROMIUM}")

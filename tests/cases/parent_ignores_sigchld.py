"""Starts the command in its arguments as a daemon does that ignores SIGCHLD, which the command inherits."""

# ranks: 1
# arguments: true

import os
import signal
import sys
import time

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
pid = os.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
patience = time.monotonic() + 60
while time.monotonic() < patience:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        print("ended")
        sys.exit()
    time.sleep(0.05)
os.kill(pid, signal.SIGKILL)
sys.exit("still running, killed")

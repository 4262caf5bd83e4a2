"""Runs named checks one after another and prints the lines that compat/run counts: ok or FAIL."""

import os
import sys
import threading
import time
import traceback

# Longest wait for something to become true. Far above what anything needs, so that a busy machine does not fail it.
PATIENCE_S = 120
# Longest time of one check: of some that wait for several things.
LIMIT_S = 300

_failed = []


def check(name, body):
    """Runs one check; what it raises fails it. One that hangs fails after LIMIT_S, and is left behind. ONLY=text in the
    environment leaves out those whose name lacks the text."""
    if os.environ.get("ONLY", "") not in name:
        return
    began = time.monotonic()
    problems = []

    def run():
        try:
            body()
        except Exception as error:  # noqa: BLE001, a failed check
            problems.append(str(error) or repr(error))
            traceback.print_exc()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if thread.is_alive():
        problems.append(f"not done within {LIMIT_S} s")
    if problems:
        _failed.append(name)
        print(f"FAIL {name}: {problems[0]}".replace("\n", " "), flush=True)
    else:
        print(f"ok {name} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)


def finish():
    """Ends the process: 0 when every check passed."""
    sys.exit(1 if _failed else 0)


def eventually(what, question, *expected_errors):
    """Waits until the answer is true, and returns it. Errors of the types named count as a no."""
    deadline = time.monotonic() + PATIENCE_S
    last = None
    while True:
        try:
            if answer := question():
                return answer
        except expected_errors as error:
            last = error
        assert time.monotonic() < deadline, f"never true within {PATIENCE_S} s: {what}" + (f" (last: {last!r})" if last else "")
        time.sleep(0.1)

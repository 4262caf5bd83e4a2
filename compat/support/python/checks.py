"""Runs named checks one after another and prints the lines that compat/run counts: ok or FAIL."""

import os
import sys
import time
import traceback

# Longest wait for something to become true. Far above what anything needs, so that a busy machine does not fail it.
PATIENCE_S = 120

_failed = []


def check(name, body):
    """Runs one check; what it raises fails it. ONLY=text in the environment leaves out those whose name lacks the text."""
    if os.environ.get("ONLY", "") not in name:
        return
    began = time.monotonic()
    try:
        body()
        print(f"ok {name} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
    except Exception as error:  # noqa: BLE001, a failed check
        _failed.append(name)
        print(f"FAIL {name}: {str(error) or repr(error)}".replace("\n", " "), flush=True)
        traceback.print_exc()


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

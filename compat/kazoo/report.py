"""Prints pytest's JUnit reports as the lines that compat/run counts: ok, FAIL and skip, one per test."""

import sys
import xml.etree.ElementTree as ElementTree


def first_line(text):
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[0][:200] if lines else "no reason given"


def main(paths):
    failed = False
    for path in paths:
        try:
            cases = list(ElementTree.parse(path).iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            print(f"FAIL {path}: no report, pytest ended early: {error}")
            failed = True
            continue
        for case in cases:
            name = f"{case.get('classname')}::{case.get('name')}"
            problem = case.find("failure")
            if problem is None:
                problem = case.find("error")
            skipped = case.find("skipped")
            if problem is not None:
                print(f"FAIL {name}: {first_line(problem.get('message'))}")
                failed = True
            elif skipped is not None:
                print(f"skip {name}: {first_line(skipped.get('message'))}")
            else:
                print(f"ok {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

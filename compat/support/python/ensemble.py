"""The ensemble in the folder that ENSEMBLE names, by compat/support/ensemble. Members are numbered from 1."""

import os
import subprocess

FOLDER = os.environ["ENSEMBLE"]

_TOOL = os.environ["REPOSITORY"] + "/compat/support/ensemble"


def tell(*words, **environment):
    """Runs one command of the tool, with additions to the environment; what it prints."""
    command = [_TOOL, FOLDER, *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}).stdout.strip()

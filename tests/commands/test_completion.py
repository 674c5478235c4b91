"""Completion of commands and options, and in each shell as docs/REFERENCE.md switches it on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from distprof.__main__ import cli

PAGE = Path(__file__).parents[2] / "docs" / "REFERENCE.md"
#: How a shell starts without the start files of the user, and what prints the completions of "distprof merge --de".
SHELLS = {
    "bash": (
        ["bash", "--norc"],
        "COMP_WORDS=(distprof merge --de); COMP_CWORD=2; _distprof_completion distprof; printf '%s\\n' ${COMPREPLY[@]}",
    ),
    "zsh": (
        ["zsh", "-f"],
        "_describe() { print -l -- ${(P)3} }; words=(distprof merge --de); CURRENT=3; $_comps[distprof]",
    ),
    "fish": (["fish", "--no-config"], "complete -C 'distprof merge --de'"),
}


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["me"], {"merge"}),
        (["merge", "--de"], {"--depth", "--detailed"}),
        (["run", "--ti"], {"--timed"}),
        (["run", "--np"], {"--nproc"}),
    ],
)
def test_words_are_completed(words: list[str], completed: set[str]) -> None:
    *before, incomplete = words
    found = ShellComplete(cli, {}, "distprof", "_DISTPROF_COMPLETE").get_completions(before, incomplete)
    assert {item.value for item in found} == completed


def line_of(shell: str) -> str:
    """Returns the line that the page names for a shell's start file."""
    (line,) = re.findall(rf"^(.*_DISTPROF_COMPLETE={shell}_source.*?) *# ", PAGE.read_text(encoding="utf-8"), re.M)
    return str(line)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_after_the_line_of_the_page(shell: str, clean_env: dict[str, str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "distprof"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c 'from distprof.__main__ import main; main()' \"$@\"\n")
    program.chmod(0o755)
    command, ask = SHELLS[shell]
    env = {**clean_env, "PATH": f"{program.parent}:{clean_env['PATH']}", "HOME": str(tmp_path)}
    ended = subprocess.run(
        [*command, "-c", f"{line_of(shell)}\n{ask}"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert re.findall(r"^--de\w+", ended.stdout, re.M) == ["--depth", "--detailed"], ended.stdout + ended.stderr

"""`simopen completion`: a shell's completion of commands, options, and codes.

Theory of operation: the scripts are made of what the parsers say of themselves. A code's words and the names of peers
are completed by asking this program, which has them. zsh takes bash's script.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Mapping, Sequence

from simopen.cli import known
from simopen.cli.console import Screen, answer
from simopen.errors import PeerError

EXAMPLE = """\
in ~/.bashrc:                     eval "$(simopen completion bash)"
in ~/.zshrc, after compinit:      eval "$(simopen completion zsh)"
in ~/.config/fish/config.fish:    simopen completion fish | source
"""
SHELLS = ("bash", "zsh", "fish")
CODE = "code"
_OPTION = re.compile(r"^  (?:-\w(?: \S+)?, )?(--[a-z][\w-]*)", re.MULTILINE)
"""At the beginning of its own line of the help: other commands' are spoken of, too."""
_BASH = """\
_simopen() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} options= at=
    COMPREPLY=()
    # bash takes an @ for a word of its own, and completes what stands behind it
    [ "$COMP_CWORD" -gt 1 ] && [ "${{COMP_WORDS[COMP_CWORD-1]}}" = @ ] && at=@
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$cur"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    case $at$cur in
        -*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;
        [0-9]*-*|@*) COMPREPLY=($(simopen completion code "$at$cur" 2>/dev/null)) ;;
    esac
    # and its readline takes the @ along where it completes hosts
    shopt -q hostcomplete 2>/dev/null || COMPREPLY=("${{COMPREPLY[@]#$at}}")
}}
complete -o default -F _simopen simopen
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen completion` takes."""
    parser.add_argument(
        "shell", metavar="SHELL", choices=(*SHELLS, CODE), help="bash, zsh or fish; its script is printed"
    )
    parser.add_argument("begun", nargs="?", default="", help=argparse.SUPPRESS)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """Print the script, or the codes that go on as `begun`. Returns the exit status."""
    del screen
    if options.shell == CODE:
        answer("".join(f"{each}\n" for each in _completed(options.begun)), end="")
    else:
        answer(script(options.shell, options.parsers), end="")
    return 0


def _completed(begun: str) -> Sequence[str]:
    if begun.startswith(known.AT):
        from simopen.rendezvous.peers import names

        with contextlib.suppress(PeerError):
            return [each for each in (f"{known.AT}{name}" for name in names()) if each.startswith(begun.casefold())]
        return []
    from simopen.rendezvous.codes import completed

    return completed(begun)


def script(shell: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """The shell's script. `parsers`: of each command."""
    options = {name: sorted(set(_OPTION.findall(parser.format_help()))) for name, parser in parsers.items()}
    if shell == "fish":
        return _fish(options)
    cases = "\n".join(f'        {name}) options="{" ".join(each)}" ;;' for name, each in options.items())
    return _ZSH * (shell == "zsh") + _BASH.format(commands=" ".join(options), cases=cases)


def _fish(options: Mapping[str, list[str]]) -> str:
    lines = [f"complete -c simopen -f -n __fish_use_subcommand -a '{' '.join(options)}'"]
    for name, each in options.items():
        seen = f"complete -c simopen -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{seen} -l {option[2:]}" for option in each]
    lines.append(
        "complete -c simopen -n 'string match -qr \"^([0-9]+-|@)\" -- (commandline -ct)' "
        "-a '(simopen completion code (commandline -ct) 2>/dev/null)'"
    )
    return "\n".join(lines) + "\n"

"""MkDocs hooks: pages generated from the parsers, the public API and the top of the checkout."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/sr-deploy/sr-deploy/blob/main/"
_SCRIPT = re.compile(r'^([\w-]+) = "([\w.]+):(\w+)"$', re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill the marker of a generated page."""
    name = page.file.name
    marker = f"<!-- generated:{name} -->"
    return markdown.replace(marker, generated(name)) if marker in markdown else markdown


def generated(name: str) -> str:
    """Return the generated part of a page."""
    if name == "commands":
        return command_reference()
    if name == "api":
        return api_reference()
    return top_of_checkout(f"{name.upper()}.md")


def top_of_checkout(name: str) -> str:
    """Return a Markdown file without its title, with links that work from the site."""
    text = (ROOT / name).read_text(encoding="utf-8").partition("\n")[2]

    def link(match: re.Match[str]) -> str:
        inside = match[1].startswith("docs/")
        return "](" + (match[1].removeprefix("docs/") if inside else REPOSITORY + match[1])

    return _LINK.sub(link, text)


def api_reference() -> str:
    """Return a mkdocstrings block for every public name, errors last."""
    import sr_deploy

    names = [name for name in sr_deploy.__all__ if not name.startswith("__")]
    errors = [name for name in names if name.endswith("Error")]
    others = [name for name in names if name not in errors]
    return "\n".join(
        [f"::: sr_deploy.{name}\n" for name in others]
        + ["## Errors\n"]
        + [f"::: sr_deploy.{name}\n" for name in errors]
    )


def scripts() -> dict[str, tuple[str, str]]:
    """Return the commands of pyproject.toml with the module and the function of each."""
    section = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = section.partition("[project.scripts]\n")[2].partition("\n[")[0]
    return {name: (module, function) for name, module, function in _SCRIPT.findall(section)}


class _ParsedError(Exception):
    """Ends a command after its arguments were parsed."""


def parse(script: str, argv: Sequence[str] = ()) -> tuple[argparse.ArgumentParser, Any]:
    """Return the parser of a command, and what it makes of arguments (None for no arguments).

    The command is called as a shell calls it, up to the point where its arguments are parsed.

    Raises:
        SystemExit: The arguments are wrong.
    """
    module, function = scripts()[script]
    main = getattr(importlib.import_module(module), function)
    found: list[tuple[argparse.ArgumentParser, Any]] = []
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        found.append((self, original(self, args, namespace) if argv else None))
        raise _ParsedError

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args):
        try:
            main(list(argv))
        except _ParsedError:
            return found[0]
    raise AssertionError(f"{script} does not parse its arguments with argparse")


def command_reference() -> str:
    """Return the reference of all commands, from their parsers."""
    os.environ.update(COLUMNS="78", NO_COLOR="1")
    sections: list[str] = []
    for script in scripts():
        parser, _ = parse(script)
        sections += [f"## {script}\n", *_parser_section(parser)]
        for name, command in _subcommands(parser):
            sections += [f"### {script} {name}\n", *_parser_section(command)]
    return "\n".join(sections)


def _subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _parser_section(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield usage, description, options and examples of one parser as Markdown."""
    yield f"```text\n{parser.format_usage().strip()}\n```\n"
    formatter = parser._get_formatter()
    if parser.description:
        yield _prose(parser.description.replace("%(prog)s", parser.prog))
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS]
        if not actions:
            continue
        yield f"**{_escaped((group.title or '').capitalize())}**\n"
        for action in actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action._choices_actions:
                    yield f"`{choice.dest}`\n:   {_escaped(choice.help or '')}\n"
                continue
            invocation = formatter._format_action_invocation(action)
            text = formatter._expand_help(action) if action.help else ""
            yield f"`{invocation}`\n:   {_escaped(text) or '&nbsp;'}\n"
    if parser.epilog:
        yield f"```text\n{parser.epilog.strip()}\n```\n"


def _prose(text: str) -> str:
    """Return help text as Markdown paragraphs; indented lines stay as they are."""
    blocks = []
    for block in text.strip().split("\n\n"):
        indented = any(line.startswith(" ") for line in block.splitlines())
        blocks.append(f"```text\n{block}\n```" if indented else _escaped(block))
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", text)

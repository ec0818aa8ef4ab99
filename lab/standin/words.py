"""ctr 1.2.6's words: commands, flags and help, all read from its help texts.

The texts in help/ are the output of `--help` of a ctr built from the sources of v1.2.6. They are the only source for
commands, their aliases, their flags, and whether a flag takes a value. Parsing follows Go's flag package and
urfave/cli 1.20, which 1.2.6 uses.
"""

TRUE = {"1", "t", "T", "TRUE", "true", "True"}
FALSE = {"0", "f", "F", "FALSE", "false", "False"}


class UsageError(Exception):
    """A wrong command line, in the words of Go's flag package."""


class Flag:
    """One flag, with its long name."""

    def __init__(self, name: str, takes_value: bool) -> None:
        self.name = name
        self.takes_value = takes_value


def help_text(*command: str) -> str | None:
    """Return the help of `ctr COMMAND…`; None if the stand-in does not cover the command."""
    path = __file__.rsplit("/", 1)[0] + "/help/" + ("-".join(command) or "ctr") + ".txt"
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 10 ms at each start
            return file.read()
    except FileNotFoundError:
        return None


def commands_of(text: str) -> dict[str, str]:
    """Return the commands in a help text: name or alias -> the command's first name."""
    names: dict[str, str] = {}
    for line in text.partition("COMMANDS:\n")[2].split("\n"):
        if not line.startswith("     "):
            break
        aliases = line[5:].split("  ")[0].split(", ")
        names.update(dict.fromkeys(aliases, aliases[0]))
    return names


def flags_of(text: str) -> dict[str, Flag]:
    """Return the flags in a help text, by each of their names. --help is always one of them."""
    help_flag = Flag("help", False)
    flags = {"help": help_flag, "h": help_flag}
    for line in text.partition("OPTIONS:\n")[2].split("\n"):
        if not line.startswith("   --"):
            continue
        spellings = [spelling.split(" ") for spelling in line[3:].split("  ")[0].split(", ")]
        flag = Flag(spellings[0][0][2:], any(len(words) > 1 for words in spellings))
        flags.update({words[0].lstrip("-"): flag for words in spellings})
    return flags


def parse(args: list[str], flags: dict[str, Flag]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the flags and the positionals of a command line, as Go's flag package splits them.

    A flag without a value has the value "true".
    """
    given: list[tuple[str, str]] = []
    rest = list(args)
    while rest and len(rest[0]) > 1 and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name = word[2:] if word.startswith("--") else word[1:]
        if name[0] in "-=":
            raise UsageError(f"bad flag syntax: {word}")
        name, equals, value = name.partition("=")
        if name not in flags:
            raise UsageError(f"flag provided but not defined: -{name}")
        if flags[name].takes_value:
            if not equals and not rest:
                raise UsageError(f"flag needs an argument: -{name}")
            given.append((flags[name].name, value if equals else rest.pop(0)))
        elif equals and value not in TRUE | FALSE:
            raise UsageError(f'invalid boolean value "{value}" for -{name}: parse error')
        else:
            given = [flag for flag in given if flag[0] != flags[name].name]
            if value not in FALSE:
                given.append((flags[name].name, "true"))
    return given, rest


def flags_first(args: list[str]) -> list[str]:
    """Reorder words as urfave/cli does: words before the first flag move behind the flags, up to `--`."""
    end = args.index("--") if "--" in args else len(args)
    first = next((i for i, word in enumerate(args[:end]) if word.startswith("-") and word != "-"), end)
    if first == end:
        return args
    return args[first:end] + args[:first] + args[end:]

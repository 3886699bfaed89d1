"""What a submission asks: options of qsub's command line and of the script's directives."""

from __future__ import annotations

import getopt
import os
import re
import signal
import time
from dataclasses import dataclass, field

from .placing import Refused
from .users import raw

USAGE = """usage: qsub [-a date_time] [-A account_string] [-c interval]
\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""

OPTIONS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
DEPENDENCIES = "after afterok afternotok afterany before beforeok beforenotok beforeany on runone"


class Illegal(Exception):
    """A value that qsub itself does not take; ``is_usage`` says whether the usage follows."""

    def __init__(self, words: str, is_usage: bool = True) -> None:
        super().__init__(words)
        self.words = words
        self.is_usage = is_usage


@dataclass
class Asked:
    """The options, the command line's before the directives'."""

    values: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)
    """Of ``-W``."""

    def add(self, words: list[str]) -> list[str]:
        """Take options that are not there yet; gives back the words behind them."""
        options, rest = getopt.getopt(words, OPTIONS)
        resources: dict[str, str] = {}
        more: dict[str, str] = {}
        given: dict[str, str] = {}
        for option, value in options:
            letter = option[1]
            if letter == "l":
                resources |= _pairs(value, "-l")
            elif letter == "W":
                more |= _pairs(value, "-W")
            else:
                check = globals().get(f"_check_{letter}")
                if check is not None and not check(value):
                    raise Illegal(f"illegal -{letter} value")
                if letter == "N" and len(value) > 230:
                    raise Illegal("Job name is too long ", is_usage=False)
                given[letter] = value
        for name, value in more.items():
            if name == "depend" and not _is_dependency(value):
                raise Illegal("illegal -W value")
        self.values = given | self.values
        self.resources = resources | self.resources
        self.more = more | self.more
        return rest


def _pairs(text: str, option: str) -> dict[str, str]:
    """``a=b,c=d``; a comma belongs to the value before it when no name follows."""
    found: dict[str, str] = {}
    for piece in re.split(r",(?=[A-Za-z_][\w.-]*=)", text):
        name, equals, value = piece.partition("=")
        if not equals:
            raise Illegal(f"illegal {option} value")
        found[name.strip()] = value
    return found


def _is_dependency(text: str) -> bool:
    return all(part.split(":")[0] in DEPENDENCIES.split() for part in text.split(","))


def _check_N(text: str) -> bool:
    return (
        bool(text) and text.isascii() and text.isprintable() and not re.search(r'[ /:"\[\]]', text)
    )


def _check_o(text: str) -> bool:
    return text.isascii()


_check_e = _check_o


def _check_J(text: str) -> bool:
    return bool(indices_of(text))


def _check_p(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None and -1024 <= int(text) <= 1023


def _check_r(text: str) -> bool:
    return text in ("y", "n")


def _check_j(text: str) -> bool:
    return text in ("oe", "eo", "n")


def _check_k(text: str) -> bool:
    return text == "n" or (bool(text) and set(text) <= set("oed"))


def _check_a(text: str) -> bool:
    return begin_of(text) is not None


def indices_of(text: str) -> list[int]:
    """``X-Y[:Z][%N]``; empty when that is no array of more than one."""
    found = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%\d+)?", text)
    if found is None or int(found[1]) >= int(found[2]):
        return []
    step = int(found[3] or 1)
    return list(range(int(found[1]), int(found[2]) + 1, step)) if step else []


def begin_of(text: str) -> float | None:
    """``[[CC]YY]MMDDhhmm[.SS]`` as a time; None when it is none."""
    found = re.fullmatch(r"(\d{8}|\d{10}|\d{12})(?:\.(\d\d))?", text)
    if found is None:
        return None
    digits = found[1]
    if len(digits) == 10:
        digits = "20" + digits
    elif len(digits) == 8:
        digits = time.strftime("%Y") + digits
    try:
        return time.mktime(time.strptime(digits + (found[2] or "00"), "%Y%m%d%H%M%S"))
    except ValueError:
        return None


def directives(script: str, prefix: str) -> list[str]:
    """Words of the ``#PBS`` lines before the first command; no prefix: there are none."""
    words: list[str] = []
    for line in script.splitlines():
        if prefix and line.startswith(f"{prefix} "):
            words += _words(line[len(prefix) :].rstrip("\r"))
        elif line.strip() and not line.startswith(("#", ":")):
            break
    return words


def _words(line: str) -> list[str]:
    """Split at blanks outside of quotes, which are taken off."""
    found = re.findall(r"""((?:[^\s"']|"[^"]*"|'[^']*')+)""", line)
    words = [re.sub(r"""(["'])(.*?)\1""", r"\2", word) for word in found]
    comment = next((n for n, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def user_variables(text: str) -> dict[str, str]:
    """``-v``: values of names without one come from the environment; quotes are trouble."""
    found: dict[str, str] = {}
    for piece in re.findall(r"""((?:[^,"'\\]|\\.|"[^"]*"|'[^']*'|["'])+)""", text, re.DOTALL):
        name, equals, value = piece.partition("=")
        if equals:
            quoted = re.fullmatch(r"""(["'])(.*)\1""", value, re.DOTALL)
            value = quoted[2] if quoted else value
            if '"' in value or "'" in value:
                raise Refused(1, "cannot send environment with the job")
        else:
            value = _from_environment(raw(os.environ.get(name, "")))
        found[name] = value.replace("\\", "\\\\") if value.strip() else ""
    return found


def _from_environment(value: str) -> str:
    if re.match(r'\{.*".*"', value, re.DOTALL):
        os.kill(os.getpid(), signal.SIGSEGV)  # the real one crashes here too
    if re.fullmatch(r'"[^"\']*"', value):
        return value.replace('"', "\\")[:-1] + "\\"
    if '"' in value or "'" in value:
        raise Refused(1, "cannot send environment with the job")
    return value

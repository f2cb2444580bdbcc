"""The screen of a terminal, as far as our live lines use one."""

import re

TOKEN = re.compile(r"\x1b\[(\??\d*)([A-Za-z])|(\r|\n)|([^\x1b\r\n]+)")


def shown_on(written: str) -> list[str]:
    """The lines that are visible after the text; cursor up, erase line and erase below are known."""
    lines, row = [""], 0
    for number, command, control, text in TOKEN.findall(written):
        if command == "A":
            row = max(0, row - int(number or 1))
        elif command == "K":
            lines[row] = ""
        elif control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text:
            lines[row] += text
        else:
            assert control == "\r" or command in "hl", command
    return [line for line in lines if line]

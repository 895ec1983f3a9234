"""Why pip failed, read from its output: one line that says what is missing and how to get it.

As setup_env.py, it is written for any Python 3.
"""

import re

MIRROR = "export PIP_INDEX_URL=https://MIRROR/simple"
UNREACHED = (
    "connection refused|name or service not known|temporary failure in name resolution|network is unreachable|"
    "no route to host|timed out|cannot connect to proxy|certificate_verify_failed"
)
NO_COMPILER = r"No such file or directory: '\S*(?:cc|\+\+|clang)'|unable to execute|command '\S*(?:cc|clang)\S*' failed"

# What stands in the output, the first that fits, and what is told; a group of the pattern fills the text's gap.
REASONS = (
    ("No space left on device", "the disk is full; make room, or choose another folder: make VENV=/path/with/room"),
    ("Permission denied: '([^']*)'", "%s can't be written; choose another folder: make VENV=/tmp/boost-venv"),
    (
        r"DO NOT MATCH THE HASHES(?s:.*?)\n\s*(\S+==\S+)",
        "the package index has another file of %s than requirements/dev.txt names; use another one: " + MIRROR,
    ),
    (
        r"\(from versions: \d(?s:.*?)No matching distribution found for (\S+)",
        "the package index has no %s for this Python; use one that is up to date: " + MIRROR,
    ),
    ("(?i)(%s)" % UNREACHED, "pip reaches no package index (%s); connect this machine, or name a mirror: " + MIRROR),
    (r"\(from versions: none\)", "pip reaches no package index; connect this machine, or name a mirror: " + MIRROR),
)

# The same for a dependency that pip had to build; its name fills the gap.
BUILDS = (
    (
        r"(?i)can't find rust|rust not found|cargo\b.* not (?:found|installed)",
        "%s has no wheel for this Python, and there is no Rust here; on Debian: apt-get install cargo",
    ),
    (
        NO_COMPILER + r"|Python\.h: No such file",
        "%s has no wheel for this Python, and there is no C compiler; on Debian: apt-get install gcc python3-dev",
    ),
)


def reason(output):
    """Return what a failed installation lacked."""
    for pattern, text in REASONS:
        found = re.search(pattern, output)
        if found:
            return text % found.groups() if found.groups() else text
    built = re.search(r"Failed building wheel for ([\w.-]+)", output)
    for pattern, text in BUILDS:
        if re.search(pattern, output):
            return text % (built.group(1) if built else "a dependency")
    return "pip failed: %s" % last([line.strip() for line in output.splitlines() if line.strip()])


def last(lines):
    """Return the most telling line: the last error."""
    errors = [line[len("ERROR: ") :] for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it said nothing"])[-1][:200]

#!/usr/bin/env python3
"""Fetches the project's default prose: Jane Austen's six novels, about 4 MB of English in the public domain.

    scripts/fetch_prose.py [--from FILE.deb]

It is the haystack of RULER's essay tasks and the text of `perplexity` and `agreement` where the user names no file. The
texts are those of Project Gutenberg; the Debian package r-cran-janeaustenr carries them (nothing is installed, R is not
needed). Writes $PREFILLBENCH_HOME/prose/austen.txt (default ~/.cache/prefillbench/prose), one line per paragraph, and
prints its path. Jane Austen died in 1817; Sense and Sensibility (1811), Pride and Prejudice (1813), Mansfield Park (1814),
Emma (1815), Northanger Abbey and Persuasion (both December 1817) are in the public domain. The package itself is under the
MIT licence; only the texts are taken out of it. Does nothing when the file is there. Needs apt-get, dpkg-deb and Python's
standard library.
"""
import argparse
import gzip
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

PACKAGE = "r-cran-janeaustenr"
NOVELS = ("sensesensibility", "prideprejudice", "mansfieldpark", "emma", "northangerabbey", "persuasion")


def die(message):
    sys.exit(f"fetch_prose: {message}")


class RStream:
    """Reads R's serialisation (XDR form, version 3), as far as lists and texts need it."""

    def __init__(self, data):
        if data[:2] != b"X\n":
            raise ValueError("not R's binary serialisation")
        self.data, self.at, self.symbols = data, 2, []
        version, _, _ = (self.integer() for _ in range(3))
        if version == 3:
            self.take(self.integer())  # the name of the native encoding
        elif version != 2:
            raise ValueError(f"version {version} of R's serialisation")

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def integer(self):
        return struct.unpack(">i", self.take(4))[0]

    def item(self):
        flags = self.integer()
        kind, has_attributes, has_tag = flags & 0xFF, flags & 0x200, flags & 0x400
        if kind == 254:  # NULL
            return None
        if kind == 255:  # a symbol met before
            return self.symbols[(flags >> 8 or self.integer()) - 1]
        if kind == 1:  # symbol
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind == 2:  # pair list: {tag: value}
            out = {}
            if has_attributes:
                self.item()
            tag = self.item() if has_tag else None
            out[tag] = self.item()
            out.update(self.item() or {})
            return out
        if kind == 9:  # one string
            n = self.integer()
            return None if n < 0 else self.take(n).decode("utf-8")
        if kind in (10, 13):  # logicals, integers
            out = [self.integer() for _ in range(self.integer())]
        elif kind in (16, 19):  # strings, list
            out = [self.item() for _ in range(self.integer())]
        else:
            raise ValueError(f"type {kind} of R's serialisation")
        attributes = self.item() if has_attributes else None
        if attributes and "names" in attributes:
            return dict(zip(attributes["names"], out))
        return out


def read_novels(folder):
    """{name: [lines]} from an R package's lazy-load database (Rdata.rdx: where what is; Rdata.rdb: zlib streams)."""
    index = RStream(gzip.decompress((folder / "Rdata.rdx").read_bytes())).item()
    blob = (folder / "Rdata.rdb").read_bytes()
    out = {}
    for name, (offset, length) in index["variables"].items():
        out[name] = RStream(zlib.decompress(blob[offset + 4:offset + length])).item()
    return out


def paragraphs(lines):
    """Hard-wrapped lines -> one line per paragraph."""
    block = []
    for line in [*lines, ""]:
        line = line.strip()
        if line:
            block.append(line)
        elif block:
            yield " ".join(block)
            block = []


def download(folder):
    """The package's file."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            die(f"{tool} was not found: this script knows Debian and Ubuntu. Elsewhere name a text of yours in the YAML "
                "(haystack_file, text)")
    get = ["apt-get", "download", "-qq", PACKAGE]
    done = subprocess.run(get, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:  # a fresh machine has no package lists
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        if not sudo or shutil.which("sudo"):
            subprocess.run([*sudo, "apt-get", "update", "-qq"], capture_output=True)
            done = subprocess.run(get, cwd=folder, capture_output=True, text=True)
    found = list(folder.glob(f"{PACKAGE}_*.deb"))
    if done.returncode != 0 or not found:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        die(f"apt-get could not download {PACKAGE} ({last}); is it reachable, and is Ubuntu's 'universe' switched on? "
            "--from FILE.deb takes a copy")
    return found[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="deb", type=pathlib.Path, metavar="FILE.deb", help=f"a copy of {PACKAGE} at hand")
    args = parser.parse_args()
    home = pathlib.Path(os.environ.get("PREFILLBENCH_HOME") or pathlib.Path.home() / ".cache/prefillbench")
    target = home / "prose" / "austen.txt"
    if target.exists():
        print(target)
        return
    with tempfile.TemporaryDirectory() as temp:
        deb = args.deb.resolve() if args.deb else download(pathlib.Path(temp))
        unpacked = pathlib.Path(temp) / "unpacked"
        done = subprocess.run(["dpkg-deb", "-x", deb, unpacked], capture_output=True, text=True)
        if done.returncode != 0:
            die(f"{deb}: {done.stderr.strip()}")
        try:
            novels = read_novels(unpacked / "usr/lib/R/site-library/janeaustenr/data")
        except (OSError, ValueError, KeyError, struct.error, zlib.error, gzip.BadGzipFile) as e:
            die(f"{deb.name}: its data are not as expected: {e}")
    missing = [n for n in NOVELS if n not in novels]
    if missing:
        die(f"{PACKAGE} lacks {', '.join(missing)}")
    text = "".join(p + "\n" for n in NOVELS for p in paragraphs(novels[n]))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.rename(target)
    print(target)


if __name__ == "__main__":
    main()

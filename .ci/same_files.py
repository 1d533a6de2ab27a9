"""`same_files.py one.whl other.whl`: the two hold the same files with the same bytes."""

import sys
import zipfile


def contents(path):
    archive = zipfile.ZipFile(path)
    return {name: archive.read(name) for name in archive.namelist()}


one, other = map(contents, sys.argv[1:])
different = sorted(name for name in one | other if one.get(name) != other.get(name))
if different:
    sys.exit(f"the wheels differ in {', '.join(different)}")
print(f"the source distribution builds the same wheel: {len(one)} files")

"""Run by scripts/try-wheel where only the wheel is installed: all public names load from it."""

import sys
from pathlib import Path

import durum

home = Path(durum.__file__).parent
if not home.is_relative_to(sys.prefix):
    sys.exit(f"durum came from {home}, not from the wheel")
for name in durum.__all__:
    getattr(durum, name)
for needed in ("py.typed", "demo/cdnow_sample.txt", "demo/shop.py"):
    if not (home / needed).is_file():
        sys.exit(f"the wheel lacks durum/{needed}")
print(f"durum {durum.__version__}: {len(durum.__all__)} public names")

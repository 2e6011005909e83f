"""The catalogue: every code that is said is explained, and the other way round."""

import re
from pathlib import Path

from specc.codes import CODES

ROOT = Path(__file__).parent.parent.parent
SAID = re.compile(r'"([STGP]\d{3})"')


def test_every_code_that_the_compiler_says_is_explained():
    texts = [p.read_text() for p in sorted((ROOT / "specc").rglob("*.py")) if p.parent.name != "codes"]
    said = {code for text in texts for code in SAID.findall(text)}
    assert said <= set(CODES)


def test_every_entry_is_complete():
    for code, entry in CODES.items():
        assert entry.code == code
        assert re.fullmatch(r"[STGPR]\d{3}", code)
        assert entry.title == entry.title.rstrip("."), code
        assert entry.why.endswith("."), code
        assert entry.fix.endswith("."), code
        assert entry.example.strip(), code

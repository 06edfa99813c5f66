"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.files import appears_whole, sha256_of


def test_appears_whole_shows_nothing_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with appears_whole(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert target.read_text() == "new"


def test_appears_whole_keeps_the_old_file_and_leaves_no_litter_when_the_writer_fails(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), appears_whole(target) as partial:
        partial.write_text("half")
        raise RuntimeError("disk")
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert target.read_text() == "old"


def test_sha256_of_matches_the_published_digest_of_abc(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

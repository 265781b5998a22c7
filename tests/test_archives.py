"""Archives: members are read in place, and what sets a trap is left alone with a reason."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from medisyn.data import archives, handles

FILES = {"a.txt": b"one", "in/b.bin": bytes(range(256)) * 40, "in/deep/c.txt": b""}
KINDS = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"]


def made(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data in files.items():
                out.writestr(name, data)
        return path
    how = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, how) as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", KINDS)
def test_members_are_read_by_name_in_any_order(tmp_path, suffix):
    path = made(tmp_path / f"x{suffix}", FILES)
    assert archives.is_archive(path) and archives.stem(path) == "x"
    assert [(one.name, one.size, one.trap) for one in archives.members(path)] == [(n, len(d), None) for n, d in FILES.items()]
    for name in [*FILES, *reversed(FILES)]:
        assert archives.read(path, name) == FILES[name]
    with pytest.raises(ValueError, match="holds no such file"):
        archives.read(path, "nowhere")


def test_the_names_of_a_tar_of_the_folder_itself_lose_the_dot(tmp_path):
    assert archives.read(made(tmp_path / "x.tar", {"./a.txt": b"one"}), "a.txt") == b"one"


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "in/../../out.txt", "..\\out.txt", "C:\\out.txt"])
def test_a_member_that_would_lie_outside_is_neither_read_nor_written(tmp_path, suffix, name):
    path = made(tmp_path / f"x{suffix}", {"fine.txt": b"fine", name: b"gone"})
    held = list(archives.unpack(path, tmp_path / "in/here", lambda member: True))
    assert [one.trap for one in held] == [None, archives.TRAPS["outside"]]
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {path.name, "fine.txt"}
    with pytest.raises(ValueError, match="leads out"):
        archives.read(path, held[1].name)


def test_links_and_devices_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as out:
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE),
                           ("disk", tarfile.BLKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            out.addfile(info)
    traps = [archives.TRAPS[kind] for kind in ("link", "link", "device", "device")]
    assert [one.trap for one in archives.members(tmp_path / "x.tar")] == traps
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        info = zipfile.ZipInfo("soft")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(info, "/etc/passwd")
    assert archives.members(tmp_path / "x.zip")[0].trap == archives.TRAPS["link"]


def test_a_bomb_is_known_by_its_ratio_before_it_is_unpacked(tmp_path):
    zeros = bytes(archives.FREE_BYTES + 1)
    (bomb,) = archives.members(made(tmp_path / "x.zip", {"zeros": zeros}))
    assert bomb.trap == archives.TRAPS["bomb"]
    for suffix in (".tar.gz", ".tar.bz2", ".tar.xz"):
        path = made(tmp_path / f"x{suffix}", {"zeros": zeros, "more": zeros})
        with pytest.raises(ValueError, match="cannot be read: it unpacks to more than 200 times"):
            archives.members(path)
    assert archives.members(made(tmp_path / "y.zip", {"text": b"ab" * 4000}))[0].trap is None  # small things may be dense


def test_a_bomb_of_files_that_overlap_is_refused(tmp_path):
    data = made(tmp_path / "one.zip", {"a": os.urandom(5000)}).read_bytes()
    start = data.index(b"PK\x01\x02")
    entry, end = data[start:data.index(b"PK\x05\x06")], bytearray(data[data.index(b"PK\x05\x06"):])
    entries = b"".join(entry.replace(b"a", bytes([letter])) if entry.endswith(b"a") else entry for letter in b"abcdef")
    end[8:12] = (6).to_bytes(2, "little") * 2
    end[12:16] = len(entries).to_bytes(4, "little")
    (tmp_path / "six.zip").write_bytes(data[:start] + entries + end)
    with pytest.raises(ValueError, match="overlap"):
        archives.members(tmp_path / "six.zip")


def test_a_size_that_the_archive_lies_about_is_found_out(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"twelve bytes"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at:at + 4] = (5).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged there"):
        archives.read(path, "a")


@pytest.mark.parametrize("suffix", KINDS)
def test_any_damage_ends_in_one_sentence(tmp_path, suffix):
    whole = made(tmp_path / f"x{suffix}", FILES).read_bytes()
    broken = [b"", b"no archive", whole[:len(whole) // 2], *(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1:]
                                                              for at in range(0, len(whole), max(1, len(whole) // 40)))]
    for number, data in enumerate(broken):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(data)
        try:
            for member in archives.members(path):
                if not member.trap:
                    archives.read(path, member.name)
        except ValueError as error:
            assert "\n" not in str(error) and str(tmp_path) not in str(error)


def test_a_locked_member_is_left_alone(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"secret"})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    assert archives.members(path)[0].trap == archives.TRAPS["locked"]


def test_a_tree_is_unpacked_whole_or_by_name(tmp_path):
    path = made(tmp_path / "x.zip", FILES)
    list(archives.unpack(path, tmp_path / "out", lambda member: member.name.endswith(".txt")))
    held = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert held == {"a.txt": b"one", "in/b.bin": b"", "in/deep/c.txt": b""}


def test_nothing_is_written_through_a_link_or_over_a_file(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").symlink_to(tmp_path / "precious")
    held = list(archives.unpack(made(tmp_path / "x.zip", FILES), tmp_path / "out", lambda member: True))
    assert "cannot be unpacked" in held[0].trap and (tmp_path / "precious").read_text() == "kept"


def test_an_archive_that_changed_is_opened_again(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"one"})
    assert archives.read(path, "a") == b"one"
    made(path, {"a": b"another"})
    assert archives.read(path, "a") == b"another"
    handles.close()

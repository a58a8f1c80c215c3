# SPDX-License-Identifier: Apache-2.0
"""The parts of the guest tooling that decide something, without a boot or the network."""

import lzma
import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import archive
import cross
import guest
import pytest
import ramdisk
import userland
from kernels import IMAGE, SUPPORTED, named, newest_release

DEBIAN = """\
MetaKey: main/binary-amd64/Packages
Origin: Debian
Label: Debian
Codename: bookworm
Component: main
Repo-URI: http://mirror.example/debian/

MetaKey: main/binary-amd64/Packages
Origin: Debian
Label: Debian-Security
Codename: bookworm-security
Component: main
Repo-URI: http://mirror.example/debian-security/
"""
THIRD_PARTY = """\
Origin: A Vendor
Label: Debian
Codename: bookworm
Component: main
Repo-URI: http://vendor.example/debian/
"""
UBUNTU = """\
Origin: Ubuntu
Label: Ubuntu
Codename: noble
Component: main
Repo-URI: http://mirror.example/ubuntu/
"""


class TestMirrors:
    def test_both_archives_are_found_by_their_labels(self):
        assert archive.mirrors_in(THIRD_PARTY + "\n" + DEBIAN) == archive.Mirrors(
            "http://mirror.example/debian/", "http://mirror.example/debian-security/"
        )

    def test_a_security_archive_may_be_missing(self):
        mirrors = archive.mirrors_in(DEBIAN.partition("\n\n")[0])
        assert mirrors.serving("trixie-backports") == "http://mirror.example/debian/"
        with pytest.raises(archive.CannotRun, match="bullseye-security"):
            mirrors.serving("bullseye-security")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [(UBUNTU, "serve Ubuntu, not Debian"), (THIRD_PARTY, "A Vendor"), ("", "apt-get update")],
    )
    def test_a_host_without_a_debian_archive_says_why(self, text, reason):
        with pytest.raises(archive.CannotRun, match=reason):
            archive.mirrors_in(text)

    def test_values_keep_their_colons(self):
        (fields,) = archive.index_targets("URI: http://mirror.example:80/x\nPDiffs: yes\n")
        assert fields == {"URI": "http://mirror.example:80/x", "PDiffs": "yes"}


class TestSuite:
    def test_only_its_own_directory_is_written(self, tmp_path):
        mirrors = archive.mirrors_in(DEBIAN)
        archive.Suite(tmp_path, mirrors, "bookworm-security", "arm64")
        text = (tmp_path / "apt" / "bookworm-security-arm64" / "sources.list").read_text()
        assert re.fullmatch(
            r"deb \[arch=arm64.*\] http://mirror\.example/debian-security/ "
            r"bookworm-security main\n",
            text,
        )


class TestKernels:
    def test_names_are_unique_and_every_row_is_found_by_name(self):
        assert [named(kernel.name) for kernel in SUPPORTED] == list(SUPPORTED)

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(LookupError, match=r"there are 5\.10-cloud,"):
            named("2.6")

    def test_numbers_are_compared_as_numbers(self):
        names = [f"{IMAGE}6.1.0-{build}-cloud-amd64" for build in (9, 56, 10)]
        assert newest_release(named("6.1-cloud").build, names) == "6.1.0-56-cloud-amd64"

    def test_none_matches(self):
        assert newest_release(named("6.1-cloud").build, [f"{IMAGE}6.1.0-9-amd64"]) is None

    @pytest.mark.parametrize(
        ("name", "release"),
        [
            ("5.10-cloud", "5.10.0-32-cloud-amd64"),
            ("6.1", "6.1.0-56-amd64"),
            ("6.12-cloud", "6.12.107+deb13-cloud-amd64"),
            ("6.12-rt", "6.12.107+deb13-rt-amd64"),
            ("6.12-16k-arm64", "6.12.107+deb13-arm64-16k"),
            ("7.x-cloud", "7.3.4+deb13-cloud-amd64"),
        ],
    )
    def test_a_row_takes_its_own_flavour_and_no_other(self, name, release):
        takers = [row.name for row in SUPPORTED if newest_release(row.build, [IMAGE + release])]
        assert takers == [name]

    def test_packages_that_merely_contain_the_release_are_not_taken(self):
        names = [
            f"{IMAGE}5.10.0-32-cloud-amd64-dbg",
            f"{IMAGE}5.10.0-32-cloud-amd64-unsigned",
            "linux-headers-5.10.0-32-cloud-amd64",
        ]
        assert newest_release(named("5.10-cloud").build, names) is None


class TestModules:
    DEPENDENCIES = (
        "kernel/a/virtio.ko: kernel/a/virtio_ring.ko\n"
        "kernel/a/virtio_ring.ko:\n"
        "kernel/b/sch-ingress.ko.xz:\n"
        "kernel/b/virtio_pci.ko: kernel/a/virtio.ko kernel/a/virtio_ring.ko\n"
    )

    def test_what_is_needed_comes_first_and_once(self):
        order = ramdisk.load_order(self.DEPENDENCIES, "", ["virtio_pci", "virtio", "sch_ingress"])
        assert order == (
            [
                "kernel/a/virtio_ring.ko",
                "kernel/a/virtio.ko",
                "kernel/b/virtio_pci.ko",
                "kernel/b/sch-ingress.ko.xz",
            ],
            [],
        )

    def test_what_is_built_in_is_no_file_and_what_is_nowhere_is_missing(self):
        builtin = "kernel/fs/fuse/virtiofs.ko\n"
        assert ramdisk.load_order(self.DEPENDENCIES, builtin, ["virtiofs", "veth"]) == (
            [],
            ["veth"],
        )

    def test_a_packed_module_is_unpacked(self, tmp_path):
        packed = tmp_path / "veth.ko.xz"
        packed.write_bytes(lzma.compress(b"module"))
        assert ramdisk.module_image(packed) == b"module"
        with pytest.raises(ValueError, match=r"veth\.ko\.lz4"):
            ramdisk.module_image(tmp_path / "veth.ko.lz4")


class TestDisk:
    FILES = (
        ("bin", (stat.S_IFDIR | 0o755, b"")),
        ("bin/sh", (stat.S_IFLNK | 0o777, b"busybox")),
        ("bin/busybox", (stat.S_IFREG | 0o755, b"12345")),
    )

    def test_headers_are_13_fields_and_members_end_on_four_bytes(self):
        disk = ramdisk.cpio(dict(self.FILES))
        assert len(disk) % 4 == 0
        at = 0
        seen = []
        while True:
            assert disk[at : at + 6] == b"070701"
            fields = [int(disk[i : i + 8], 16) for i in range(at + 6, at + 110, 8)]
            mode, size, length = fields[1], fields[6], fields[11]
            name = disk[at + 110 : at + 110 + length - 1].decode()
            body = (at + 110 + length + 3) // 4 * 4
            if name == "TRAILER!!!":
                break
            seen.append((name, (mode, disk[body : body + size])))
            at = (body + size + 3) // 4 * 4
        assert tuple(seen) == self.FILES

    def test_another_reader_of_the_format_agrees(self, tmp_path):
        busybox = shutil.which("busybox")
        if busybox is None:
            pytest.skip("there is no busybox here to read it")
        subprocess.run(
            [busybox, "cpio", "-i"], input=ramdisk.cpio(dict(self.FILES)), cwd=tmp_path, check=True
        )
        assert (tmp_path / "bin" / "sh").read_bytes() == b"12345"


class TestHost:
    @pytest.mark.parametrize(
        ("text", "version"),
        [
            ("QEMU emulator version 7.2.18 (Debian 1:7.2+dfsg-7)\nCopyright", (7, 2, 18)),
            ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\n", (10, 0, 2)),
            ("cannot execute", (0,)),
        ],
    )
    def test_the_version_of_qemu(self, text, version):
        assert guest.qemu_version_in(text) == version

    def test_packages_follow_the_release_and_the_architecture(self):
        assert "virtiofsd" not in guest.apt_packages("bookworm", "amd64")
        assert "virtiofsd" in guest.apt_packages("trixie", "amd64")
        assert "qemu-system-arm" in guest.apt_packages("trixie", "arm64")

    def test_the_list_can_be_printed_before_anything_is_installed(self):
        done = subprocess.run(
            ["/usr/bin/env", "python3", guest.__file__, "--apt-packages"],
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
        )
        assert "busybox-static" in done.stdout.split()


class TestUserland:
    def test_a_guest_of_this_architecture_shares_the_hosts_own_root(self):
        shared = guest._shared(guest.HOST_ARCH)
        assert shared["LOWER"] == shared["CHECKOUT"] == ""

    def test_python_must_be_one_that_a_release_of_debian_has(self, monkeypatch):
        monkeypatch.setattr(userland.sys, "version_info", (3, 12, 1))
        with pytest.raises(archive.CannotRun, match=r"3\.11 and 3\.13.*this is 3\.12"):
            userland._suite_name()

    def test_what_pyproject_names_is_installed_beside_the_tests_own(self):
        names = {re.match(r"[\w.-]+", line)[0] for line in userland._requirements()}
        assert {"brotli", "msgspec", "pytest", "websockets"} <= names
        assert "ruff" not in names

    def test_what_lies_beside_usr_is_merged_into_it(self, tmp_path):
        (tmp_path / "usr" / "bin").mkdir(parents=True)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "sh").symlink_to("bash")
        userland._merge(tmp_path)
        assert (tmp_path / "bin").readlink() == Path("usr/bin")
        assert (tmp_path / "usr" / "bin" / "sh").readlink() == Path("bash")
        userland._merge(tmp_path)
        assert (tmp_path / "bin" / "sh").is_symlink()

    def test_an_environment_is_laid_out_for_the_checkouts_own_place(self, tmp_path):
        wheel = tmp_path / "some.whl"
        with zipfile.ZipFile(wheel, "w") as packed:
            packed.writestr("ecapture/__init__.py", "")
        userland._lay_out(tmp_path / "made", wheel)
        program = (tmp_path / "made" / "bin" / "ecapture").read_text()
        assert program.startswith(f"#!{guest.CHECKOUT}/.venv/bin/python\n")
        (found,) = (tmp_path / "made").glob("lib/python3.*/site-packages/ecapture/__init__.py")
        assert list(found.parent.glob("__pycache__/*.pyc"))

    def test_a_compiler_that_is_missing_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cross, "MACHINES", {"arm64": "nothing"})
        with pytest.raises(archive.CannotRun, match="install gcc-nothing-linux-gnu"):
            cross.build_wheel("arm64", tmp_path, tmp_path)


class TestCommand:
    def test_it_runs_in_the_checkout_with_its_words_kept_apart(self, monkeypatch):
        monkeypatch.setenv("ECAPTURE_COLOUR", "a 'b'")
        script = guest._script("6.1.0", ["echo", "a b", "$c"], {"EXTRA": "$d"})
        assert "export EXTRA='$d'\n" in script
        assert "export ECAPTURE_GUEST_RELEASE=6.1.0\n" in script
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "a b $c\n"

    def test_a_word_of_the_host_does_not_replace_the_guests_own(self, monkeypatch):
        monkeypatch.setenv("ECAPTURE_GUEST_RELEASE", "old")
        script = guest._script("new", ["true"], {})
        assert "ECAPTURE_GUEST_RELEASE=new" in script
        assert "=old" not in script

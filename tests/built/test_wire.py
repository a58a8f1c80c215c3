# SPDX-License-Identifier: Apache-2.0
"""Both sides of the kernel boundary agree, in every object and on every architecture."""

import ast
import importlib.util
import itertools
from pathlib import Path

import pytest

import ecapture
from bpf_object import SHIPPED, programs, shipped
from ecapture._wire import PLAIN_SLOTS, Shape
from ecapture.kernel import families
from ecapture.kernel.families import FAMILIES, host_programs, objects
from ecapture.kernel.keys import KEPT, LOG, MASTER, NSS_LOG, NSS_VALUE
from ecapture.kernel.owners import CREATED, HELD, USED
from ecapture.kernel.packets import IN, OUT, OWNERS, PACKETS
from ecapture.kernel.told import TOLD
from ecapture.probes import probes

CHECKOUT = Path(__file__).parents[2]
MACHINES = ("x86_64", "aarch64")
FEATURES = ("btf", "tp_btf:sock_send_length", "kprobe", "tp_btf:sched_process_exit")


@pytest.fixture(scope="module")
def gen_wire():
    spec = importlib.util.spec_from_file_location("gen_wire", CHECKOUT / "tools" / "gen_wire.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def types_of(gen_wire, path):
    return gen_wire.Types(gen_wire.section(path.read_bytes(), ".BTF"))


def shapes(gen_wire, path):
    """What an object says about the types of the wire: {name: (size, members)}."""
    types = types_of(gen_wire, path)
    found = {}
    for name, kind, size, members in types.entries:
        if not name.startswith("ec_"):
            continue
        if kind == gen_wire.STRUCT:
            found[name] = size, [(m, bits, types.size(of)) for m, of, bits in members]
        elif kind == gen_wire.ENUM:
            found[name] = size, members
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_the_python_side_is_what_the_compiled_header_says(gen_wire, machine):
    """Compared as syntax trees: the layout of the text is the formatter's."""
    generated = gen_wire.generate((SHIPPED / f"wire.{machine}.bpf.o").read_bytes())
    committed = (CHECKOUT / "src" / "ecapture" / "_wire.py").read_text()
    installed = (Path(ecapture.__file__).parent / "_wire.py").read_text()
    assert installed == committed, "the installed package is older than the checkout: build it"
    assert ast.dump(ast.parse(generated)) == ast.dump(ast.parse(committed)), "run `make wire`"


def test_every_architecture_is_shipped():
    names = {path.name.split(".")[0] for path in SHIPPED.iterdir()}
    assert {"wire", "plaintext"} <= names
    assert {path.name for path in SHIPPED.iterdir()} == {
        f"{name}.{machine}.bpf.o" for name in names for machine in MACHINES
    }


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_every_object_agrees_on_the_types_it_mentions(gen_wire, path):
    wire = shapes(gen_wire, SHIPPED / f"wire.{MACHINES[0]}.bpf.o")
    mentioned = shapes(gen_wire, path)
    assert mentioned.keys() <= wire.keys(), "wire.bpf.c must mention every type"
    assert "ec_settings" in mentioned
    for name, shape in mentioned.items():
        assert shape == wire[name], name


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_every_object_may_call_what_its_licence_allows(gen_wire, path):
    licence = gen_wire.section(path.read_bytes(), "license")
    assert licence == b"Dual BSD/GPL\0"


def reachable(name, monkeypatch):
    """Programs of an object that some plan on some kernel takes."""
    found = set()
    for family in FAMILIES.values():
        if family.object == name:
            found |= {family.enter, family.leave, family.leave_bounded, family.assume} - {""}
            found |= {f"{family.enter}_{row}" for row in range(PLAIN_SLOTS) if family.enter}
    found |= {PACKETS: {IN, OUT}, OWNERS: {CREATED, HELD, *USED}}.get(name, set())
    for count in range(len(FEATURES) + 1):
        for present in itertools.combinations(FEATURES, count):
            monkeypatch.setattr(families, "feature", lambda asked, has=present: asked in has)
            for follow in (False, True):
                found |= set(host_programs(name, follow=follow))
    return found


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_every_program_is_reachable_from_some_plan(path, monkeypatch):
    present = {program.name for program in programs(path)}
    taken = reachable(path.name.split(".")[0], monkeypatch)
    assert present
    assert present - taken == set(), "no plan takes these"
    numbered = {name for name in taken - present if name.rpartition("_")[2].isdecimal()}
    assert taken - present == numbered, "plans take these, but they are not there"


def test_every_object_is_loaded_for_something():
    shapes_used = {hook.shape for probe in probes().values() for hook in probe.hooks}
    shapes_used |= {hook.shape for hook in (LOG, MASTER, KEPT, NSS_LOG, NSS_VALUE, TOLD)}
    loaded = {*objects(shapes_used), OWNERS, PACKETS}
    assert {path.name.split(".")[0] for path in shipped()} == loaded


def test_every_shape_has_programs():
    assert set(FAMILIES) == set(Shape)

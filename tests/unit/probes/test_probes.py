# SPDX-License-Identifier: Apache-2.0
"""Every probe is a value that the kernel programs and the command line can use."""

import pkgutil

import pytest

import ecapture.probes
from ecapture._wire import HOOKS_MAXIMUM, PLAIN_SLOTS, Length, Shape
from ecapture.config import CaptureConfig
from ecapture.kernel.families import FAMILIES
from ecapture.probes import probes
from ecapture.session import _hooks

PROBES = probes()


def test_every_module_is_found_and_names_are_unique():
    modules = [m.name for m in pkgutil.iter_modules(ecapture.probes.__path__) if m.name != "spec"]
    assert len(PROBES) == len(modules)
    names = [name for probe in PROBES.values() for name in (probe.name, *probe.aliases)]
    assert len(names) == len(set(names))
    assert list(PROBES) == sorted(PROBES)


def test_all_hooks_together_fit_the_table():
    assert (
        sum(len(probe.hooks + probe.unattended_hooks) for probe in PROBES.values()) <= HOOKS_MAXIMUM
    )


def test_all_hooks_together_are_told_apart_without_attach_cookies():
    hooks = _hooks(CaptureConfig(unattended=True), list(PROBES.values()))
    rows = [row for row, hook in enumerate(hooks) if FAMILIES[hook.shape].object == "plaintext"]
    assert max(rows) < PLAIN_SLOTS


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
class TestProbe:
    def test_words(self, probe):
        assert probe.name.islower()
        assert probe.summary
        assert not probe.summary.endswith(".")
        assert probe.explicit_option.startswith("--")

    def test_what_is_required_is_hooked(self, probe):
        symbols = [hook.symbol for hook in probe.hooks]
        assert len(symbols) == len(
            {(hook.symbol, hook.convention, hook.shape) for hook in probe.hooks}
        )
        assert probe.required
        assert set(probe.required) <= set(symbols)

    def test_hooks_that_move_bytes_come_first(self, probe):
        """Kernels without attach cookies tell only the first hooks apart."""
        moving = [hook.shape is Shape.PLAINTEXT for hook in probe.hooks]
        assert moving == sorted(moving, reverse=True)
        assert sum(moving) <= PLAIN_SLOTS

    def test_rows_are_what_the_kernel_reads(self, probe):
        for hook in probe.hooks:
            assert len(hook.row()) == 8
            assert max(hook.handle, hook.buffer, hook.length) <= 5  # arguments in registers
            if hook.length_kind is Length.POINTED:
                assert hook.length != hook.buffer

    def test_the_row_is_one_argument_apart(self, probe):
        for hook in probe.hooks:
            if hook.shape is Shape.PLAINTEXT and hook.buffer:
                # a span tells place and length in one
                one_for_both = hook.length_kind is Length.SPAN
                assert len({hook.handle, hook.buffer, hook.length}) == 3 - one_for_both

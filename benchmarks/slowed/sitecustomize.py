"""Makes every step of the decode loop slower by a share of itself. Python imports this module at its start where its
folder is on PYTHONPATH, in worker processes too; `benchmarks/slow_night.py` puts it there.

HARNESS_SLOWED_BY is the share: 0.1 is a tenth.
"""

import importlib.util
import os
import sys
import time
from importlib.abc import MetaPathFinder

LOOP = "harness.backends.hf.decode"


def slowed(crank, share):
    """`crank` with a delay after every step, of this share of the whole step."""

    def slow_crank(model, turn, cached, forward, on_tokens):
        began = None

        def slow_forward(ids, new):
            nonlocal began
            logits = forward(ids, new)
            now = time.perf_counter_ns()
            if began is not None:
                until = now + share * (now - began)
                while time.perf_counter_ns() < until:
                    pass
            began = time.perf_counter_ns()
            return logits

        return crank(model, turn, cached, slow_forward, on_tokens)

    return slow_crank


class Slowing(MetaPathFinder):
    """Slows the loop down as soon as it is imported."""

    def find_spec(self, name, path=None, target=None):
        if name != LOOP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def and_slow(module):
            execute(module)
            module.crank = slowed(module.crank, float(os.environ["HARNESS_SLOWED_BY"]))

        spec.loader.exec_module = and_slow
        return spec


sys.meta_path.insert(0, Slowing())

"""Fold on the graph: what is affine and shift-equivariant between two tensors becomes one convolution.

    before:  x ─┬─ Conv 3×3 ────────────────────┬─ Add ─ PRelu
                ├─ Conv 1×1 ─ pad by bias ─ Conv ┤
                └─ BatchNormalization ───────────┘
    after:   x ─ Conv 3×3 ─ PRelu

The fold of modules (``sr_deploy/fold``) sees a module only as a whole: one that ends in an activation hides the
branches in front of it. Here the same question is asked of parts of the graph:

* ``structure.py``: which tensors follow linearly from which, by operators that may be affine, and which of them every
  way to a tensor passes (its dominators): those are the entries to try;
* ``region.py``: the nodes between an entry and an exit as a torch module, in float32 or float64;
* ``apply.py``: the walk; each region is probed, bounded and proved by ``sr_deploy/fold`` as a module is;
* ``sums.py``: a sum of more than one source, of which some summands have one source.
"""

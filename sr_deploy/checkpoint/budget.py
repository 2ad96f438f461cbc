"""What reading a checkpoint may cost, whatever the file asks for: every limit, and why it is what it is.

A pickle of a kilobyte can ask for gigabytes (lists that are copied again and again) and for hours (names that are
compared with every other name). So whatever a file can repeat is counted while it is done, and the count has an end
that no network comes near. The checkpoints that the limits were set by: 2,800 tensors at most, 41,000 instructions,
135 kB of pickle, 1,146 entries in the archive. Together the limits keep a small file under 2 s and 500 MB.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Instructions of a file's pickles, elements copied and arguments looked at. A tensor takes 46 of them, so this is
#: enough for 12,000, optimiser states included, and ten times what any published file took; 1.3 to 1.7 s at most.
STEPS = 560_000
#: Entries, modules and known names looked at while the state dict is sought, each time one is looked at.
SEARCH_STEPS = 500_000
#: Bytes of all pickles of a file. Text among them may become four times as large in memory.
PICKLE_BYTES = 32 << 20
#: Bytes of one line of a pickle's text instructions. Decimal numbers are written so, and reading them is quadratic.
LINE_BYTES = 4096
#: Bits of a whole number; PyTorch's own are 80 at most.
NUMBER_BITS = 2048
#: Characters of the name of a class or function, with its module.
NAME_LETTERS = 256
#: Characters of a tensor's whole name, and of a storage's key. The longest names seen have 90.
KEY_LETTERS = 512
#: Tensors of one state dict. The largest super-resolution networks, diffusion models, have fewer than 3,000.
TENSORS = 10_000
#: Wrappers (parallel training, compilation, a trainer's class) around one network.
WRAPPERS = 16
#: Modules inside each other. Real networks have 15 at most.
MODULE_DEPTH = 50
#: Bytes of a zip archive's directory: more than 40,000 entries of the length that torch.save gives them.
DIRECTORY_BYTES = 4 << 20
#: A zip archive may unpack to this many bytes, or to ``UNPACKED_TIMES`` its own size, whichever is more. Weights hardly
#: shrink; pruned ones, packed again by hand, to a fifth.
UNPACKED_BYTES, UNPACKED_TIMES = 64 << 20, 10
#: Bytes of a safetensors header: 17,000 tensors.
HEADER_BYTES = 2 << 20
#: Tensors in memory, in the file's type and in float32, may have this many bytes and ``TENSOR_TIMES`` the file's size
#: more: bytes that become float32 take 5 times their size, and a file may tie or expand some.
TENSOR_BYTES, TENSOR_TIMES = 96 << 20, 8


class OverBudget(Exception):
    """The file asks for more than any checkpoint needs.

    Args:
        found: what it asks for.
        wanted: the limit.
    """

    def __init__(self, found: str, wanted: str) -> None:
        self.found, self.wanted = found, wanted
        super().__init__(f"{found}; wanted: {wanted}")


@dataclass
class Budget:
    """A count with an end.

    Attributes:
        what: what the steps are taken for, for the message.
        limit: how many there may be.
        spent: how many there were.
    """

    what: str
    limit: int
    spent: int = 0

    def spend(self, steps: int = 1) -> None:
        """Count some steps, before they are taken.

        Raises:
            OverBudget: there have been too many.
        """
        self.spent += steps
        if self.spent > self.limit:
            raise OverBudget(f"it takes more than {self.limit:,} steps {self.what}", f"at most {self.limit:,}")


def check_limit(amount: int, limit: int, what: str) -> None:
    """Raise OverBudget when ``amount`` of ``what`` (a plural) passes a limit."""
    if amount > limit:
        raise OverBudget(f"it has {amount:,} {what}", f"at most {limit:,}")

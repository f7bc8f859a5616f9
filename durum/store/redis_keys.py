"""Names of keys. All keys of one partition share one hash tag, so that one script may touch them.

A tag is the text between the first braces, and those are ours: whatever a grain's id holds comes
after them. Knows no command.
"""

from __future__ import annotations

import urllib.parse

from durum.ids import GrainId


class Keys:
    """The keys of one service.

    Args:
        cluster: the service's name; characters that mean something in a key are percent-encoded.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster = urllib.parse.quote(cluster, safe="")
        self.members = f"durum:{{{self._cluster}}}:members"
        self.channel = f"durum:{{{self._cluster}}}:hints"
        self._prefixes: dict[int, str] = {}

    def prefix(self, partition: int) -> str:
        """What all keys of a partition begin with."""
        known = self._prefixes.get(partition)
        if known is None:
            known = self._prefixes[partition] = f"durum:{{{self._cluster}:{partition}}}:"
        return known

    def owner(self, partition: int) -> str:
        """A partition's owner record."""
        return self.prefix(partition) + "own"

    def grain(self, partition: int, grain: GrainId) -> str:
        """A grain's record: its version, last commit and state."""
        return f"{self.prefix(partition)}g:{grain}"

    def replies(self, partition: int, grain: GrainId) -> str:
        """A grain's remembered replies, apart from its record: no turn rewrites them all."""
        return f"{self.prefix(partition)}r:{grain}"

    def index(self, partition: int) -> str:
        """Ids of the partition's grains, sorted. The commit script makes this name itself, and that of
        the replies."""
        return self.prefix(partition) + "idx"

    def hosts(self, partition: int) -> str:
        """Host records by grain. The fence of hosted tokens makes this name itself."""
        return self.prefix(partition) + "hosts"

    def outbox(self, partition: int) -> str:
        """Messages that are not acknowledged yet, by number."""
        return self.prefix(partition) + "out"

    def wake_ups(self, partition: int) -> str:
        """Wake-ups by time."""
        return self.prefix(partition) + "due"

    def letters(self, partition: int) -> tuple[str, str]:
        """Dead letters by name, and their names, sorted."""
        prefix = self.prefix(partition)
        return prefix + "dead", prefix + "deadn"

    def parts(self, partition: int, grain: GrainId) -> tuple[str, str]:
        """The parts of a grain's record: their contents by name, and their names, sorted."""
        prefix = self.prefix(partition)
        return f"{prefix}p:{grain}", f"{prefix}n:{grain}"

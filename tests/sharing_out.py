"""Which worker runs which test."""

from xdist.scheduler import LoadGroupScheduling


class ByFile(LoadGroupScheduling):
    """A file is one worker's, for what is launched for it is shared by its tests; but those of the
    same `xdist_group` go together, so that a file that takes longest can be in parts."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).split("::", 1)[0]

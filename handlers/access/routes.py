"""Says which permission each route of the HTTP API needs.

1. The table is total: a route without a row is refused to everybody (a test walks all routes).
2. Where a path names a session, reach OWN means the caller's own sessions.
3. Only the paths of OPEN need no token.
4. Pure.
"""

from schemas.access import Permission

OPEN = frozenset({"/health", "/ready", "/metrics", "/api/v1/sessions/health", "/api/v1/sessions/metrics"})
"""Asked by machines that watch: they tell no name and no byte of a session."""

_SESSION = "/api/v1/sessions/{session_id}"

ROUTES: dict[str, Permission] = {
    "GET /openapi.json": Permission.PING,
    "GET /config": Permission.SEE_SYSTEM,
    "GET /status": Permission.SEE_SYSTEM,
    "GET /compression/stats": Permission.SEE_SYSTEM,
    "GET /api/v1/sessions/statistics": Permission.LIST,
    # session-api
    "POST /api/v1/sessions": Permission.OPEN,
    "GET /api/v1/sessions": Permission.LIST,
    f"GET {_SESSION}": Permission.SEE,
    f"PUT {_SESSION}": Permission.OPEN,
    f"DELETE {_SESSION}": Permission.DISCARD,  # the command asks for DESTROY if there is a recording
    f"POST {_SESSION}/start": Permission.RECORD,
    f"POST {_SESSION}/stop": Permission.RECORD,
    f"POST {_SESSION}/pause": Permission.RECORD,
    f"POST {_SESSION}/resume": Permission.RECORD,
    f"POST {_SESSION}/abort": Permission.RECORD,
    f"POST {_SESSION}/error": Permission.RUN_PIPELINE,
    f"POST {_SESSION}/recover": Permission.RUN_PIPELINE,  # the command asks for ACCEPT_LOSS, too
    f"POST {_SESSION}/redrive": Permission.RUN_PIPELINE,
    f"PUT {_SESSION}/hold": Permission.HOLD,
    f"DELETE {_SESSION}/hold": Permission.HOLD,
    f"GET {_SESSION}/pipeline": Permission.SEE,
    f"POST {_SESSION}/pipeline/pause": Permission.RUN_PIPELINE,
    f"POST {_SESSION}/pipeline/resume": Permission.RUN_PIPELINE,
    f"GET {_SESSION}/statistics": Permission.SEE,
    f"GET {_SESSION}/where": Permission.SEE,
    f"GET {_SESSION}/chunks": Permission.SEE,
    f"GET {_SESSION}/chunks/{{chunk_id}}": Permission.SEE,
    f"GET {_SESSION}/chunks/{{chunk_id}}/download": Permission.WATCH,
    f"HEAD {_SESSION}/chunks/{{chunk_id}}/download": Permission.WATCH,
    f"GET {_SESSION}/recording": Permission.WATCH,
    f"HEAD {_SESSION}/recording": Permission.WATCH,
    f"GET {_SESSION}/manifest": Permission.READ_SEALED,
    f"HEAD {_SESSION}/manifest": Permission.READ_SEALED,
    f"GET {_SESSION}/history": Permission.SEE,
    f"GET {_SESSION}/evidence": Permission.EXPORT,
    f"HEAD {_SESSION}/evidence": Permission.EXPORT,
    f"GET {_SESSION}/events": Permission.SEE,
    "GET /api/v1/audit": Permission.READ_AUDIT,
    "GET /api/v1/audit/export": Permission.READ_AUDIT,
    "POST /api/v1/access-requests": Permission.WATCH,
    "GET /api/v1/access-requests": Permission.LIST,
    "POST /api/v1/access-requests/{request_id}/approve": Permission.APPROVE,
    "POST /api/v1/access-requests/{request_id}/refuse": Permission.LIST,
    # session-pipeline
    "POST /pipelines": Permission.OPEN,
    "POST /pipelines/{session_id}/start": Permission.RECORD,
    "POST /pipelines/{session_id}/stop": Permission.RECORD,
    "GET /pipelines/{session_id}/status": Permission.SEE,
    "DELETE /pipelines/{session_id}": Permission.RECORD,
    "POST /pipelines/{session_id}/chunks": Permission.UPLOAD,
    "GET /pipelines/{session_id}/chunks": Permission.UPLOAD,
    # session-recorder
    "POST /recordings/start": Permission.CREATE,
    "GET /recordings": Permission.SEE_SYSTEM,
    "GET /recordings/{session_id}": Permission.SEE,
    "POST /recordings/{session_id}/stop": Permission.RECORD,
    "DELETE /recordings/{session_id}": Permission.RECORD,
    "GET /chunks/{session_id}": Permission.SEE,
    "POST /chunks/{session_id}/process": Permission.UPLOAD,
    # session-processor
    "POST /chunks/process": Permission.PROCESS,
    "POST /chunks/batch": Permission.PROCESS,
    "GET /sessions/{session_id}/merkle": Permission.READ_SEALED,
    "GET /sessions/{session_id}/merkle/consistency": Permission.READ_SEALED,
    "GET /sessions/{session_id}/merkle/{index}": Permission.READ_SEALED,
    "HEAD /sessions/{session_id}/manifest": Permission.READ_SEALED,
    "GET /sessions/{session_id}/manifest": Permission.READ_SEALED,
    # session-storage
    "PUT /chunks/{session_id}/{index}": Permission.PROCESS,
    "HEAD /chunks/{session_id}/{index}": Permission.READ_SEALED,
    "GET /chunks/{session_id}/{index}": Permission.READ_SEALED,
}

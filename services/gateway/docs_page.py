"""The documentation page: Swagger UI from the files of an installed wheel, so that it works without the internet."""

from importlib import resources

STYLES = "swagger-ui.css"
SCRIPT = "swagger-ui-bundle.js"

#: Swagger UI sets styles on its elements; scripts run from our own files alone.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Traitmesh API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/{STYLES}">
</head>
<body>
<div id="page"></div>
<script src="/docs/{SCRIPT}"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

_START = """SwaggerUIBundle({
  url: "/v1/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""


def docs_files() -> dict[str, tuple[str, bytes]]:
    """The files of the page: by path, their media type and content."""
    swagger = resources.files("swagger_ui") / "static"
    return {
        "/docs": ("text/html; charset=utf-8", _PAGE.encode()),
        "/docs/start.js": ("text/javascript; charset=utf-8", _START.encode()),
        f"/docs/{STYLES}": ("text/css; charset=utf-8", (swagger / STYLES).read_bytes()),
        f"/docs/{SCRIPT}": ("text/javascript; charset=utf-8", (swagger / SCRIPT).read_bytes()),
    }

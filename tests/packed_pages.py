"""Pages keep plotly and downloads compressed; tests of what a page tells read them unpacked."""

import gzip
import re
from base64 import b64decode

PACKED = re.compile(r'(<script type="text/plain" id="[^"]+">)([^<]*)(</script>)')


def unpacked(html: str) -> str:
    """Return a page with the content of its compressed scripts in their place."""

    def content(script: re.Match[str]) -> str:
        return script[1] + gzip.decompress(b64decode(script[2])).decode() + script[3]

    return PACKED.sub(content, html)

# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
"""A registry that changes one byte, for test-image.sh: python3 tampering_registry.py UPSTREAM DIGEST PORT_FILE

It answers what the registry UPSTREAM answers, with one byte changed in what is asked for by DIGEST.
"""

import http.server
import os
import sys
import urllib.error
import urllib.request

upstream, digest, port_file = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        request = urllib.request.Request(upstream + self.path, method=self.command, headers={"Accept": self.headers.get("Accept", "*/*")})
        try:
            response = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            response = error
        content = bytearray(response.read())
        # In the time of a gzip's header, so that nothing notices but who looks at the digest.
        if len(content) > 4 and self.path.endswith("/" + digest):
            content[4] ^= 1
        self.send_response(response.status)
        for name, value in response.headers.items():
            if name.lower() in ("content-type", "content-length", "docker-content-digest"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(port_file + ".new", "w", encoding="utf-8") as file:
    file.write(str(server.server_port))
os.rename(port_file + ".new", port_file)
server.serve_forever()

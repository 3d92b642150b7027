"""Asks the role of this container whether it does its work. Ends with 0 if it does, else with 1 and the reason.

Without an argument, the role's metrics port is one of those that `secformer init` writes; else the argument is the URL
of its /readyz. The certificate is not checked: the question does not leave the container.
"""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request

USUAL = tuple(f"http://127.0.0.1:{port}/readyz" for port in (9440, 9442, 9443))  # dealer, party 0, party 1
PATIENCE = 2.0  # seconds


def problem(url: str) -> str:
    """Why the role at this URL does not do its work; "" if it does."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with direct.open(url, timeout=PATIENCE):
            return ""
    except urllib.error.HTTPError as refused:
        with refused:
            return f"{url}: {refused.read(1000).decode('utf-8', 'replace').strip()}"
    except OSError as error:
        return f"{url}: {error}"


def main() -> int:
    problems = [problem(url) for url in sys.argv[1:] or USUAL]
    if "" in problems:
        return 0
    print(*problems, sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

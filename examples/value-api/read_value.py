"""Reads the value of a secret through the value API, with the token of the pod's service account.

    python3 read_value.py NAME|ID

It needs the standard library only. SERVICE_ACCOUNT_DIR names another folder with token, ca.crt and namespace.
"""

import json
import os
import pathlib
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def read_value(name_or_id: str) -> str:
    """Returns the value of a secret of the pod's namespace."""
    folder = pathlib.Path(os.environ.get("SERVICE_ACCOUNT_DIR", SERVICE_ACCOUNT))
    # Kubernetes replaces the token, so it is read for each request.
    token = (folder / "token").read_text().strip()
    namespace = (folder / "namespace").read_text().strip()
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    if ":" in host:
        host = f"[{host}]"
    path = "/".join(urllib.parse.quote(part, safe="") for part in (namespace, "secretvalues", name_or_id))
    request = urllib.request.Request(
        f"https://{host}:{port}/apis/values.managedsecrets.dev/v1alpha1/namespaces/{path}",
        headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
    )
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    # Without the proxies of the environment: the API server is in the cluster.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)["status"]["value"]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: read_value.py NAME|ID")
    try:
        value = read_value(sys.argv[1])
    except urllib.error.HTTPError as error:
        # A Kubernetes Status; it contains no value.
        sys.exit(f"cannot read the value: HTTP {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"cannot read the value: {error}")
    sys.stdout.write(value)


if __name__ == "__main__":
    main()

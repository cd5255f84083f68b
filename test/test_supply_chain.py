"""scripts/sbom and scripts/audit: what they say of the pins, without the internet."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

if os.environ.get("EFV2_ROS_FROM") != "wheels":
    pytest.skip("these tests read an environment of scripts/env", allow_module_level=True)

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
PREFIX = Path(os.environ["VIRTUAL_ENV"])


@pytest.fixture(scope="module")
def tools():
    """The Python that has cyclonedx-py and pip-audit; installed beside the running environment."""
    result = subprocess.run(
        [sys.executable, SCRIPTS / "audit_tools.py"],
        env={**os.environ, "EFV2_CACHE_DIR": str(PREFIX.parent), "PIP_RETRIES": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "The package index cannot be reached" in result.stderr:
        pytest.skip("cyclonedx-py and pip-audit are neither installed nor to be had")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def advisories():
    """A server of advisories that knows one, of PyYAML; gives its address."""

    class Advisories(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = asked["package"]["name"] == self.server.vulnerable
            advisory = {"id": "TEST-1", "aliases": ["CVE-1"], "summary": "", "details": "bad"}
            advisory["affected"] = [
                {
                    "package": {"name": asked["package"]["name"], "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99"}]}],
                }
            ]
            body = json.dumps({"vulns": [advisory]} if known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        server.vulnerable = ""
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def run(python, script, *arguments):
    return subprocess.run(
        [python, SCRIPTS / script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def audit(python, address):
    url = f"http://{address[0]}:{address[1]}/v1/query"
    return run(python, "audit.py", "--vulnerability-service=osv", f"--osv-url={url}")


def test_audit_names_what_is_vulnerable(tools, advisories):
    advisories.vulnerable = "empy"
    result = audit(tools, advisories.server_address)
    assert result.returncode == 1, result.stderr
    assert "empy 3.3.4: CVE-1, TEST-1; mended in 99" in result.stdout

    advisories.vulnerable = ""
    result = audit(tools, advisories.server_address)
    assert result.returncode == 0, result.stderr
    assert "No known vulnerabilities in" in result.stdout


def test_audit_without_advisories_says_that_nothing_is_known(tools):
    result = audit(tools, ("127.0.0.1", 1))
    assert result.returncode == 3
    assert "pip-audit cannot ask for advisories" in result.stderr


def test_audit_does_not_take_a_skipped_package_for_a_good_one(tools):
    code = (
        "import audit; skipped = {'name': 'empy', 'skip_reason': 'not found'}; "
        "good = {'name': 'numpy', 'version': '1', 'vulns': []}; "
        "print(audit.summarise([good, skipped]))"
    )
    result = subprocess.run(
        [tools, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert "Nothing is known of 1 of 2 pinned packages" in result.stdout
    assert result.stdout.endswith(", 3)\n")


def test_bill_of_materials(tools, tmp_path):
    file = tmp_path / "bill.json"
    result = run(tools, "sbom.py", "-o", file, PREFIX)
    assert result.returncode == 0, result.stderr
    text = file.read_text()
    code = "import pathlib, sbom, sys; print(sbom.bill_of_materials(pathlib.Path(sys.argv[1])))"
    again = subprocess.run(
        [tools, "-c", code, PREFIX],
        env={**os.environ, "PYTHONPATH": f"{SCRIPTS}:{ROOT}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert again.stdout == f"{text}\n"
    assert str(PREFIX) not in text
    bill = json.loads(text)
    package = bill["metadata"]["component"]
    assert package["name"] == "efv2_ros"
    assert package["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    components = {each["name"]: each for each in bill["components"]}
    assert len(components) == len(bill["components"])
    pinned = [each for each in bill["components"] if each.get("purl", "").startswith("pkg:pypi/")]
    without = [each["name"] for each in pinned if not each["externalReferences"]]
    assert without == ["pip"]
    numpy = components["numpy"]["externalReferences"][0]["hashes"]
    assert {each["alg"] for each in numpy} == {"SHA-256"}
    assert {"ros-rclpy", "vision_msgs", "network-cards", "noto-color-emoji"} <= set(components)
    (dependencies,) = [each for each in bill["dependencies"] if each["ref"] == package["bom-ref"]]
    assert set(dependencies["dependsOn"]) == {each["bom-ref"] for each in bill["components"]}

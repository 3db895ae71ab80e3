# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does the model engine answer? Exit code 0 says so: one word was really computed, or an own image's /health is well.

It runs in the container as the health check, and on the host while the service starts (--wait). The first Python 3 that
is there must do, so nothing is imported that is slow or not its own.
"""

import argparse
import http.client
import json
import os
import sys
import time

GAP = 1.0  # seconds between two questions


def ask(arguments):
    """What is wrong; nothing, if the engine answers."""
    connection = http.client.HTTPConnection("127.0.0.1", arguments.port, timeout=arguments.timeout)
    headers = {"Content-Type": "application/json"}
    if arguments.key_variable in os.environ:
        headers["Authorization"] = "Bearer " + os.environ[arguments.key_variable]
    try:
        if arguments.path:
            connection.request("GET", arguments.path)
        else:
            question = {
                "model": arguments.model,
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 1,
                "temperature": 0,
            }
            connection.request("POST", "/v1/chat/completions", json.dumps(question), headers)
        reply = connection.getresponse()
        text = reply.read()
        # On the host the key is not known: that it is asked for shows that somebody is there.
        if reply.status in (401, 403) and arguments.wait:
            return ""
        if reply.status != 200:
            return f"status {reply.status}: {text[:200].decode('utf-8', 'replace')}"
        if not arguments.path:
            json.loads(text)["choices"][0]["message"]["content"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--timeout", type=float, required=True, help="seconds for one answer")
    parser.add_argument("--model", default="", help="its name in requests")
    parser.add_argument("--path", default="", help="only fetch this path")
    parser.add_argument("--key-variable", default="", help="environment variable with the API key")
    parser.add_argument("--tries", type=int, default=1)
    parser.add_argument("--wait", type=int, metavar="PID", default=0, help="as long as it takes, while PID lives")
    arguments = parser.parse_args()
    tries = 0
    while True:
        wrong = ask(arguments)
        tries += 1
        if not wrong:
            return 0
        if arguments.wait:
            if not os.path.exists(f"/proc/{arguments.wait}"):
                print(f"the engine ended before it answered ({wrong})", file=sys.stderr)
                return 1
        elif tries >= arguments.tries:
            print(wrong, file=sys.stderr)
            return 1
        time.sleep(GAP)


if __name__ == "__main__":
    sys.exit(main())

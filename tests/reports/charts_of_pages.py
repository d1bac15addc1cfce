"""The specifications of the charts of a page, as the page puts them together."""

import json
import re
from typing import Any


def specs_of(page: str) -> dict[str, dict[str, Any]]:
    found = re.search(r'id="specs">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    document = json.loads(found[1])

    def whole(value: dict[str, Any]) -> Any:
        return document["texts"][value["$"]] if "$" in value else value

    specs: dict[str, dict[str, Any]] = json.loads(json.dumps(document["specs"]), object_hook=whole)
    return specs

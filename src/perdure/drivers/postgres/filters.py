from typing import Any
def render(tree: Any, columns: Any, metadata: str, prefix: str = "f") -> tuple[str, dict[str, Any]]:
    return "true", {}

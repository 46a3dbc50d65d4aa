"""A page about the interface for programs, made from the OpenAPI document; no script and nothing from elsewhere."""

from __future__ import annotations

from typing import Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from dlg_ml_tasks.web.pages.answering import HTML, Answerer, PageModel, conditional

router = APIRouter()


class Parameter(BaseModel):
    """A parameter of an operation."""

    name: str
    where: str
    required: bool
    description: str


class Operation(BaseModel):
    """What can be asked at one path."""

    method: str
    path: str
    summary: str
    parameters: list[Parameter]


class Interface(PageModel):
    """Every operation, by section."""

    template: ClassVar[str] = "interface.html"

    sections: dict[str, list[Operation]]

    def page_title(self) -> str:
        return "Interface for programs"


@router.get("/docs", include_in_schema=False)
def interface(request: Request) -> Response:
    """The interface for programs, for people."""
    answerer: Answerer = request.app.state.answerer
    page = _described(request.app.openapi())
    return conditional(request, answerer.render(page, request), HTML)


def _described(document: dict[str, Any]) -> Interface:
    sections: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            described = Operation(
                method=method.upper(),
                path=path,
                summary=operation.get("description", operation.get("summary", "")),
                parameters=[
                    Parameter(
                        name=each["name"],
                        where=each["in"],
                        required=each.get("required", False),
                        description=each.get("description", ""),
                    )
                    for each in operation.get("parameters", [])
                ],
            )
            sections.setdefault(operation.get("tags", ["Other"])[0], []).append(described)
    return Interface(sections=sections)

"""The settings of the serving process: every variable, its value and its origin; secrets are masked."""

from fastapi import APIRouter

from schemas.api.responses import SettingPage, SettingShown
from schemas.config.settings import VARIABLES
from streams.api.answers import PROBLEMS
from streams.api.routes.sessions import Parts

DEFAULT = "default"

router = APIRouter(tags=["pipelines"], responses=PROBLEMS)


@router.get("/config", response_model=SettingPage)
async def show_config(parts: Parts) -> SettingPage:
    """Every setting of this process. The value of a secret is never told."""
    settings = parts.settings
    return SettingPage(
        settings=[
            SettingShown(
                name=variable.name,
                value=variable.shown(settings.value(variable)),
                origin=settings.origins.get(variable.field, DEFAULT),
                effect=variable.effect,
            )
            for variable in VARIABLES
        ]
    )

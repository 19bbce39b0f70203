"""The providers of captions that are offered here, and what each of them is asked."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, computed_field
from sqlmodel import Session

from app.registry.added_models import service as added_models
from app.registry.api_records import api_record
from app.registry.caption_models import service as caption_models
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.config import Settings
from app.registry.errors import InvalidInput, invalid_field
from app.registry.job_kinds.caption_kinds import CaptionArgs
from app.registry.tables.added_models import CaptionModel
from app.registry.tables.datasets import Dataset
from worker.core.captioning.do_not_name import MAX_WORD_LENGTH, MAX_WORDS
from worker.core.captioning.interface import MAX_PROMPT
from worker.core.captioning.remote.addresses import BadAddress, host_and_port, is_allowed
from worker.core.captioning.style_words import NOT_TO_NAME
from worker.core.captioning.words import CaptionFamily, ProviderKind

MAX_MODEL = 200
MAX_ADDRESS = 500
WITHOUT_SETUP = (ProviderKind.BUILTIN, ProviderKind.FILENAME)
SERVERS = (ProviderKind.OLLAMA, ProviderKind.OPENAI)
HINTS = {
    ProviderKind.BUILTIN: "Names the one subject of a drawing, if it is sure. No download.",
    ProviderKind.FILENAME: "At once: “red_fox-02.png” becomes “red fox”. Numbers, codes and words "
    "that all names share are left out.",
    ProviderKind.OLLAMA: "A vision model of your own Ollama server.",
    ProviderKind.OPENAI: "A vision model behind /v1/chat/completions.",
}
LOCAL_HINT = "A model on this machine."
LOCAL_HINTS: dict[str, str] = {
    CaptionFamily.BLIP: "BLIP on this machine: a short sentence. Follows no prompt.",
    CaptionFamily.FLORENCE2: "Florence-2 on this machine: a sentence or two. Follows no prompt.",
    CaptionFamily.WD_TAGGER: "A tagger on this machine: tags, the likeliest first.",
}
URL_SETTINGS = {
    ProviderKind.OLLAMA: "BRUSHWORK_OLLAMA_URL",
    ProviderKind.OPENAI: "BRUSHWORK_OPENAI_URL",
}
LOCAL_OLLAMA = "http://127.0.0.1:11434"
LOCAL_OLLAMA_SECONDS = 0.3
NO_OLLAMA = "No Ollama runs on this machine. Start it, or set BRUSHWORK_OLLAMA_URL to its address."
NO_MODEL_SEES = "No model of Ollama on this machine sees images. Get one: ollama pull llava."
NOT_SET = "Not set up: set {setting} to its address, then start Brushwork again."
NOT_ALLOWED = (
    "{host} is not a host that this server may ask. Use the configured address, or ask an "
    "administrator to add it to BRUSHWORK_CAPTION_HOSTS."
)


@api_record
class Provider:
    """A provider of captions."""

    kind: ProviderKind = Field(serialization_alias="provider")
    """builtin, filename, local, ollama or openai."""
    name: str = Field(description="Its name.")
    hint: str = Field(exclude=True)
    problem: str = ""
    """Why it cannot be used now, as a sentence; empty: it can."""
    address: str = ""
    """The configured address of its server; empty: none."""
    model: str = ""
    """The configured model of its server, or the local model; empty: none."""
    can_move: bool = Field(exclude=True, default=False)
    model_id: int | None = Field(default=None, description="The local model; null for the others.")
    models: tuple[str, ...] = ()
    """The models that see images, of an Ollama that was found on this machine."""

    @property
    def model_options(self) -> list[tuple[str, str]]:
        """The found models to choose from, each as its own label."""
        return [(name, name) for name in self.models]

    @property
    def value(self) -> str:
        """Its value in forms and addresses, such as `ollama` or `local-3`."""
        return self.kind if self.model_id is None else f"{self.kind}-{self.model_id}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def takes_prompt(self) -> bool:
        """Whether it follows a prompt."""
        return self.kind in SERVERS


def local_models(settings: Settings) -> tuple[str, ...] | None:
    """The models that see images of an Ollama on this machine, asked now; None: it is not there.

    It is not asked if the address of another one is set, or if the settings say so.
    """
    # here, because the web server does without it until then
    from worker.core.captioning.remote.local_ollama import models_that_see

    if settings.ollama_url or not settings.ollama_local:
        return None
    return models_that_see(LOCAL_OLLAMA, LOCAL_OLLAMA_SECONDS)


def list_providers(
    session: Session, settings: Settings, models: tuple[str, ...] | None = None
) -> list[Provider]:
    """The providers, those that need no server first; `models`: `local_models`."""
    found = [
        *(Provider(kind, kind.label, HINTS[kind]) for kind in WITHOUT_SETUP),
        *(_local(model) for model in added_models.list_models(session, CAPTION_MODELS)),
    ]
    ollama, openai = SERVERS
    return [*found, _server(settings, ollama, models), _server(settings, openai)]


def _server(
    settings: Settings, kind: ProviderKind, models: tuple[str, ...] | None = None
) -> Provider:
    address, model = _configured(settings, kind)
    can_move = bool(settings.caption_host_list)
    name, problem = kind.label, "" if address else NOT_SET.format(setting=URL_SETTINGS[kind])
    if kind is ProviderKind.OLLAMA and address and not settings.ollama_url:
        name, problem = "Ollama on this machine", NO_OLLAMA if models is None else NO_MODEL_SEES
        model = model or next(iter(models or ()), "")
    return Provider(
        kind,
        name,
        HINTS[kind],
        "" if models or can_move else problem,
        address,
        model,
        can_move=can_move,
        models=models or (),
    )


def _local(model: CaptionModel) -> Provider:
    return Provider(
        ProviderKind.LOCAL,
        model.name,
        LOCAL_HINTS.get(model.family or "", LOCAL_HINT),
        added_models.problem_of(CAPTION_MODELS, model),
        model=model.source,
        model_id=model.key,
    )


def default_words(dataset: Dataset) -> tuple[str, ...]:
    """Words that captions of a dataset must not contain: its trigger word and words for styles."""
    return (*([dataset.trigger_word] if dataset.trigger_word else []), *NOT_TO_NAME)


def check_request(session: Session, settings: Settings, request: CaptionArgs) -> CaptionArgs:
    """The complete arguments of a job. Raises InvalidInput with a reason per field."""
    fields: dict[str, str] = {}
    kind = request.provider
    address = model = prompt = ""
    model_id = None
    if kind is ProviderKind.LOCAL:
        local = caption_models.usable_model(session, request.model_id, request.model.strip())
        model, model_id = local.source, local.key
    if kind in SERVERS:
        address = _check_server(settings, request, fields)
        model = request.model.strip() or _configured(settings, kind)[1]
        prompt = request.prompt.strip()
        if not model:
            fields["model"] = "Enter the name of a model that sees images, such as llava."
        elif len(model) > MAX_MODEL or not model.isprintable():
            fields["model"] = f"Enter the name of a model, at most {MAX_MODEL} characters."
        if not prompt:
            fields["prompt"] = "Say what the captions should describe."
        elif len(prompt) > MAX_PROMPT:
            fields["prompt"] = f"The prompt is longer than {MAX_PROMPT:,} characters. Shorten it."
    _check_words(request.do_not_name, fields)
    if fields:
        raise InvalidInput(next(iter(fields.values())), fields=fields)
    return CaptionArgs(
        provider=kind,
        address=address,
        model=model,
        model_id=model_id,
        prompt=prompt,
        do_not_name=tuple(request.do_not_name),
    )


def require_allowed(settings: Settings, kind: ProviderKind, address: str) -> None:
    """Raise InvalidInput unless this server may ask this address for captions."""
    configured = _configured(settings, kind)[0]
    try:
        if address == configured or is_allowed(address, settings.caption_host_list):
            return
        sentence = NOT_ALLOWED.format(host=host_and_port(address))
    except BadAddress as error:
        sentence = str(error)
    raise invalid_field("address", sentence)


def key_for(settings: Settings, kind: ProviderKind, address: str) -> str:
    """The key that this address gets; "" for any but the one that it was configured for."""
    if kind is ProviderKind.OPENAI and settings.openai_key and address == settings.openai_url:
        return settings.openai_key.get_secret_value()
    return ""


def _check_server(settings: Settings, request: CaptionArgs, fields: dict[str, str]) -> str:
    configured = _configured(settings, request.provider)[0]
    address = request.address.strip() or configured
    if not address:
        fields["address"] = NOT_SET.format(setting=URL_SETTINGS[request.provider])
    elif len(address) > MAX_ADDRESS:
        fields["address"] = f"An address has at most {MAX_ADDRESS} characters."
    else:
        try:
            require_allowed(settings, request.provider, address)
        except InvalidInput as refused:
            fields |= refused.fields
    return address


def _check_words(words: Sequence[str], fields: dict[str, str]) -> None:
    if len(words) > MAX_WORDS:
        fields["do_not_name"] = f"List at most {MAX_WORDS} words."
    elif any(len(word) > MAX_WORD_LENGTH for word in words):
        fields["do_not_name"] = (
            f"A word or phrase has at most {MAX_WORD_LENGTH} characters. Separate them by commas."
        )


def _configured(settings: Settings, kind: ProviderKind) -> tuple[str, str]:
    """Address and model in the settings; "" where nothing is set."""
    if kind is ProviderKind.OLLAMA:
        local = LOCAL_OLLAMA if settings.ollama_local else ""
        return settings.ollama_url or local, settings.ollama_model
    if kind is ProviderKind.OPENAI:
        return settings.openai_url or "", settings.openai_model
    return "", ""

"""Requests and replies, checked by pydantic and described at /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imc_lite.images.dicom.windows import CHANNELS, WHOLE, WINDOWS
from imc_lite.models.base import MOST_TOP_LOGPROBS
from imc_lite.pipeline import MOST_QUESTIONS
from imc_lite.server.reports import Answer, Answers, Report, Trust

MAX_MESSAGES = 200
# A grey pixel, for the examples of the description.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "What modality is this?"},
    {"type": "image_url", "image_url": {"url": PIXEL}},
]
EXAMPLE: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": PARTS}]}
# Values that ask for nothing; anything else of these is refused, because leaving it out would mislead.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "stop": ([],),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
}


class Request(BaseModel):
    """Types are taken as they are: "1" is no number."""

    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(BaseModel):
    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    model_config = ConfigDict(strict=True)
    url: str = Field(description="`data:image/png;base64,…`, or a URL of a host that the server allows")


class ImagePart(BaseModel):
    model_config = ConfigDict(strict=True)
    type: Literal["image_url"]
    image_url: ImageUrl | str = Field(description="many clients send the URL itself")


class Message(BaseModel):
    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_the_others(cls, data: Any) -> Any:
        """Only what users say is read: the rest may hold parts of any type, such as an assistant's refusal."""
        if isinstance(data, dict) and data.get("role") != "user" and isinstance(data.get("content"), list):
            return {**data, "content": None}
        return data


class View(Request):
    """How a DICOM picture is shown."""

    window: str | None = Field(
        default=None,
        max_length=80,
        description=f"{', '.join([*WINDOWS, WHOLE])}, or CENTRE,WIDTH; of a CT also three of these with : between, for "
        f"red, green and blue, or {', '.join(CHANNELS)}",
    )
    frame: int | None = Field(default=None, ge=1, description="counted from 1")


class ImcOptions(View):
    """Beyond OpenAI's fields."""

    pdc: bool = Field(default=True, description="look for image noise and calibrate")
    sms: bool = Field(default=True, description="repair a damaged question")
    max_risk: float | None = Field(
        default=None, ge=0, le=1, description="give no answer that is likelier than this to be wrong"
    )
    check_wording: bool = Field(
        default=False, description="ask the question in other words too; what comes of it counts in the confidence"
    )
    questions: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_QUESTIONS,
        description="about the one picture, in the place of the message's text; each has its choice",
    )


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)
    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """OpenAI's chat request. The last user message asks, or `imc.questions`; the picture is the last of any user's."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"example": EXAMPLE})

    model: str | None = Field(default="default", description="may be left out or empty: there is one model")
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, description="the server's own limit may be lower")
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: Literal[1] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, description="without effect: decoding is greedy")
    top_p: float | None = Field(default=None, ge=0, le=1, description="without effect")
    seed: int | None = Field(default=None, description="without effect")
    logprobs: bool | None = Field(default=False, description="of the answer's tokens; in a stream with its last choice")
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS, description="of so many at each place")
    imc: ImcOptions | None = None


class PictureRequest(View):
    """A picture to look at."""

    model_config = ConfigDict(json_schema_extra={"example": {"image": PIXEL}})

    image: str = Field(description="`data:image/png;base64,…`, or a URL of a host that the server allows")


class RepairRequest(Request):
    """A question to repair."""

    model_config = ConfigDict(json_schema_extra={"example": {"question": "Is teh heart enlargd?"}})

    question: str


class ChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = Field(default=None, description="why there is no answer, where max_risk forbids it")


class TopLogprob(BaseModel):
    """A token by what it adds to the answer: empty where it ends it, or begins a character that others make whole."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    imc: Answer | Answers


class ForwardedAnswer(Report, Trust):
    """The other server's answer, and what was done on the way to it."""

    answer: str | None


class ForwardedCompletion(BaseModel):
    """The other server's chat completion, all its fields, and the report."""

    model_config = ConfigDict(extra="allow")
    imc: ForwardedAnswer


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    status: Literal["ok", "starting"]
    model: str
    version: str


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """OpenAI's error."""

    error: ErrorBody

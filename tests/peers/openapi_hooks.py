"""What schemathesis is told about our models, so that what it makes up also reaches them.

It makes requests out of the document alone. A model's id and a picture are not in it: most of the texts that stand for
them are replaced here by real ones, the rest stay as they are and are refused.
"""

import base64
import pathlib

import schemathesis

MODELS = {"/v1/images/detect": "shapes", "/v1/images/classify": "kinds",
          "/v1/audio/transcriptions": "listener", "/v1/audio/translations": "listener",
          "/v1/audio/speech": "voice"}
PICTURE = (pathlib.Path(__file__).parents[2] / "models" / "sample.png").read_bytes()
RECORDING = (pathlib.Path(__file__).parents[2] / "wasm-stages/audio-decode/tests/data/s16.flac").read_bytes()
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# Where an answer may be as long as the context. Anthropic's route is not among them: it has to have a limit.
UNLIMITED = {"/v1/chat/completions": "max_tokens", "/v1/completions": "max_tokens",
             "/v1/responses": "max_output_tokens"}


def real(made_up):
    """Whether a made-up value gives way to a real one: the same for the same value, and for two of three."""
    return len(made_up) % 3 != 2


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    made_up = (case.path_parameters or {}).get("id")
    if isinstance(made_up, str) and real(made_up):
        case.path_parameters["id"] = "kinds"
    body = case.body
    if path.startswith("/v1/images/") and isinstance(body, bytes) and real(body):
        case.body = PICTURE
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and real(body["model"]):
        body["model"] = MODELS.get(path, "chat")
    image = body.get("image")
    if isinstance(image, str) and real(image):
        body["image"] = base64.b64encode(PICTURE).decode()
    if isinstance(image, bytes) and real(image):
        body["image"] = PICTURE
    recording = body.get("file")
    if path.startswith("/v1/audio/") and isinstance(recording, bytes) and real(recording):
        body["file"] = RECORDING
    # Long answers cost time and show nothing that short ones do not.
    for limit in LIMITS:
        if type(body.get(limit)) is int and 8 < body[limit] < 2**32:
            body[limit] = 8
    if path in UNLIMITED and all(body.get(limit) is None for limit in LIMITS):
        body[UNLIMITED[path]] = 8

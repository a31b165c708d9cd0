//! Every error code the host knows, in one table: what it means, and who has to act.
//!
//! Plugins and stages may add their own; an unknown code counts as [`Class::Internal`].

use crate::error::Class;

/// (code, class, meaning), grouped by the module that refuses.
pub const CODES: &[(&str, Class, &str)] = &[
    // files
    ("file-not-found", Class::NotFound, "a file or folder that was named does not exist"),
    ("io", Class::Internal, "reading or writing a file failed"),
    (
        "output-closed",
        Class::Cancelled,
        "whoever read standard output has gone; the command ends quietly, with status 0",
    ),
    // config
    ("config-syntax", Class::Invalid, "the configuration is not TOML"),
    ("config-version", Class::Invalid, "the configuration has the layout of another version of pajamas"),
    ("config-unknown-key", Class::Invalid, "the configuration has a key that does not exist"),
    ("config-missing-key", Class::Invalid, "the configuration lacks a key that is needed"),
    (
        "config-invalid-value",
        Class::Invalid,
        "a value of the configuration has the wrong type or is out of range",
    ),
    ("config-duplicate-id", Class::Invalid, "two models or two pipelines have the same id"),
    (
        "config-unknown-reference",
        Class::Invalid,
        "the configuration names a model, pipeline or stage that does not exist",
    ),
    (
        "config-file-missing",
        Class::Invalid,
        "a file that the configuration needs, or the configuration itself, does not exist",
    ),
    ("config-conflict", Class::Invalid, "two values of the configuration exclude each other"),
    ("config-circle", Class::Invalid, "ladders of the configuration lead back to themselves"),
    (
        "config-too-large",
        Class::Invalid,
        "none of the models that a rule or ladder names can ever be in the memory of this machine",
    ),
    (
        "intent-model-invalid",
        Class::Invalid,
        "the weights of the router's intent classifier are damaged, or made for another version of pajamas",
    ),
    ("config-invalid", Class::Invalid, "the configuration has several problems of different kinds"),
    ("listen-not-loopback", Class::Invalid, "the server would be open to other machines, without keys"),
    // artifacts
    ("manifest-missing", Class::NotFound, "a folder that should be an artifact has no manifest.json"),
    (
        "manifest-invalid",
        Class::Invalid,
        "the manifest.json of an artifact is damaged or lacks what it must say",
    ),
    ("artifact-version", Class::Invalid, "the artifact has the layout of a newer version of pajamas"),
    ("artifact-corrupt", Class::Invalid, "a file of an artifact is missing or not what its manifest says"),
    ("variant-not-found", Class::NotFound, "the artifact has not the format or precision that was asked for"),
    // requests, shared with plugins
    ("invalid-input", Class::Invalid, "the request or a value in it is wrong"),
    ("invalid-option", Class::Invalid, "an option is unknown or out of range"),
    ("unsupported", Class::Invalid, "the model, backend or plugin does not offer the operation"),
    ("context-length-exceeded", Class::Invalid, "prompt and answer do not fit the model's context"),
    ("cancelled", Class::Cancelled, "the caller stopped the request"),
    ("out-of-memory", Class::Unavailable, "the device has not enough memory"),
    ("model-not-found", Class::NotFound, "no model of this id, and no file or artifact at this path"),
    ("model-invalid", Class::Invalid, "the model file is damaged, truncated or of another format"),
    ("output-too-large", Class::TooLarge, "a backend or stage produced more than the limit allows"),
    ("internal", Class::Internal, "a fault of the host or a plugin: please report it"),
    // plugins: opening one
    ("plugin-manifest-missing", Class::NotFound, "there is no plugin.toml beside the library"),
    ("plugin-manifest-invalid", Class::Invalid, "the plugin.toml is damaged or lacks what it must say"),
    (
        "plugin-manifest-mismatch",
        Class::Invalid,
        "manifest and library are not of the same plugin or version",
    ),
    ("plugin-platform-mismatch", Class::Invalid, "the plugin is for another operating system or processor"),
    (
        "plugin-abi-incompatible",
        Class::Invalid,
        "the plugin was built against another major version of the ABI",
    ),
    (
        "plugin-hash-missing",
        Class::Invalid,
        "the manifest has no sha256, and the configuration insists on one",
    ),
    (
        "plugin-hash-mismatch",
        Class::Invalid,
        "the library, or one it brings along, is not the one that was packed",
    ),
    ("plugin-library-missing", Class::NotFound, "a library that the manifest names cannot be read"),
    (
        "plugin-open-failed",
        Class::Invalid,
        "the system cannot load the library: it is none, or another one is missing",
    ),
    ("plugin-symbol-missing", Class::Invalid, "the library is no plugin"),
    ("plugin-probe-invalid", Class::Invalid, "the library has the symbol of a plugin, and is none"),
    ("plugin-panic-abort", Class::Invalid, "the plugin was built so that a panic would end the host"),
    ("plugin-layout-mismatch", Class::Invalid, "plugin and host do not agree on the layout of the ABI"),
    ("plugin-not-for-this-machine", Class::Unavailable, "no backend of the plugin runs on this machine"),
    ("plugin-shadowed", Class::Invalid, "a plugin of the same name was found earlier in the search"),
    ("conformance-failed", Class::Invalid, "the plugin does not keep the contract: see the report"),
    // plugins: running one
    ("panicked", Class::Internal, "the plugin panicked; its session takes no more requests"),
    ("session-poisoned", Class::Internal, "the session panicked earlier"),
    (
        "isolation-unavailable",
        Class::Invalid,
        "models cannot run in processes of their own on this operating system",
    ),
    ("worker-failed", Class::Unavailable, "a model's own process could not be started"),
    (
        "worker-crashed",
        Class::Internal,
        "the model's own process crashed or was killed; the model is loaded anew",
    ),
    (
        "worker-hung",
        Class::Internal,
        "the model's own process did not go on for longer than plugins.worker allows, and was killed",
    ),
    ("output-missing", Class::Internal, "the backend did not write an output that it was asked for"),
    ("output-unexpected", Class::Internal, "the backend wrote an output that nobody asked for"),
    (
        "output-mismatch",
        Class::Internal,
        "the backend wrote an output of another type or shape than it promised",
    ),
    ("plugin-protocol", Class::Internal, "plugin and host misunderstood each other: a fault of one of them"),
    // choosing and carrying out
    ("backend-unavailable", Class::Unavailable, "no backend here runs the model as the configuration asks"),
    (
        "model-quarantined",
        Class::Unavailable,
        "the model's backend panicked again and again, or its own process crashed; an operator has to load it",
    ),
    ("model-not-chosen", Class::Invalid, "no model was named, and none or several would do"),
    ("no-candidate", Class::Unavailable, "none of the models that a request may go to can take it"),
    (
        "deadline-unmet",
        Class::Unavailable,
        "no model is predicted to answer within the request's own timeout, so none begins",
    ),
    (
        "route-policy",
        Class::Unavailable,
        "no model keeps the policies, and the configuration refuses otherwise",
    ),
    ("task-mismatch", Class::Invalid, "the model or the pipeline is for another task"),
    ("pipeline-unknown", Class::Invalid, "the model's signature does not tell which pipeline it needs"),
    (
        "pipeline-incomplete",
        Class::Invalid,
        "the pipeline does not leave the value that the task or a step needs",
    ),
    ("language-unknown", Class::Invalid, "the model does not know the language that was asked for"),
    (
        "format-unsupported",
        Class::Invalid,
        "speech is not written in the format that was asked for: only as wav, flac or pcm",
    ),
    ("sound-invalid", Class::Internal, "a model that speaks gave no samples, or some that are no numbers"),
    ("chat-template-missing", Class::Invalid, "the model has no chat template, so it cannot chat"),
    ("chat-template-failed", Class::Invalid, "the model's chat template refuses these messages"),
    // models of other servers
    (
        "remote-unavailable",
        Class::Unavailable,
        "the other server cannot be reached, has a fault of its own, or failed and is left alone for a while",
    ),
    ("remote-busy", Class::Busy, "the other server has too much to do"),
    (
        "remote-timeout",
        Class::Unavailable,
        "the other server did not answer, or said nothing for longer than remote.silence",
    ),
    ("remote-interrupted", Class::Unavailable, "the other server stopped in the middle of its answer"),
    (
        "remote-invalid",
        Class::Unavailable,
        "what the other server answered is not what OpenAI's API promises, or longer than remote.max_answer",
    ),
    ("remote-refused", Class::Invalid, "the other server does not take the request"),
    (
        "remote-denied",
        Class::Unavailable,
        "the other server does not take the key, or knows neither the address nor the model",
    ),
    ("remote-key-missing", Class::Unavailable, "the variable that remote.key_env names holds no key"),
    // server
    ("listen-failed", Class::Unavailable, "the server's address cannot be taken"),
    ("body-too-large", Class::TooLarge, "the request's body is larger than server.max_body"),
    ("route-not-found", Class::NotFound, "the server has nothing at this path"),
    ("method-not-allowed", Class::Invalid, "the server has something at this path, but not for this method"),
    (
        "request-timeout",
        Class::Unavailable,
        "the request took longer than server.request_timeout, or than its own timeout",
    ),
    (
        "model-loading",
        Class::Unavailable,
        "the model is being loaded, and server.while_loading lets no request wait for it",
    ),
    ("queue-full", Class::Busy, "server.max_queue requests run and wait for the model already"),
    (
        "rate-limited",
        Class::Busy,
        "the key has used up what server.keys allows it: requests at the same time, requests or tokens in a minute",
    ),
    (
        "client-too-slow",
        Class::Unavailable,
        "the client did not send or take its bytes within server.client_timeout",
    ),
    (
        "shutting-down",
        Class::Unavailable,
        "the server was told to stop, and the request was not done in server.drain_timeout",
    ),
    ("key-missing", Class::Unauthenticated, "the server asks for a key, and none was sent"),
    ("key-unknown", Class::Unauthenticated, "the key that was sent is none of the server's"),
    ("key-scope", Class::Forbidden, "the key is not for this path"),
    ("origin-refused", Class::Forbidden, "a web page of another origin asked, of a server without keys"),
    // repositories of models
    (
        "repository-invalid",
        Class::Invalid,
        "what was named is no id of a repository, or what the hub says of it cannot be: names that lead elsewhere",
    ),
    (
        "repository-not-found",
        Class::NotFound,
        "the hub has no repository of this id, or shows it only to others",
    ),
    ("revision-not-found", Class::NotFound, "the repository has no branch, tag or commit of this name"),
    (
        "repository-gated",
        Class::Forbidden,
        "the hub wants a token, or its owner to have accepted the model's licence",
    ),
    (
        "repository-unusable",
        Class::Invalid,
        "the repository holds neither safetensors nor GGUF, or several GGUF files of which none was named",
    ),
    (
        "repository-file-not-found",
        Class::NotFound,
        "the repository has no such file, or several that would do",
    ),
    ("hub-unavailable", Class::Unavailable, "the hub cannot be reached, or answers with a fault of its own"),
    ("hub-offline", Class::Unavailable, "HF_HUB_OFFLINE is set, and the cache has not what was asked for"),
    (
        "download-failed",
        Class::Unavailable,
        "the connection broke again and again; what came is kept, and the next run goes on there",
    ),
    (
        "download-corrupt",
        Class::Invalid,
        "a file that was downloaded is not what the hub says; nothing of it is kept",
    ),
    ("disk-full", Class::Unavailable, "the files to download do not fit the disk of the cache"),
    // quantizing: the host
    (
        "quantizer-not-found",
        Class::NotFound,
        "no plugin makes this format, or none makes it out of such a source",
    ),
    ("output-busy", Class::Busy, "another run writes into the same folder"),
    ("batch-invalid", Class::Invalid, "a file of models to make artifacts of is damaged, or lacks a key"),
    ("batch-failed", Class::Unmet, "some of the models of a batch were refused, each for its own reason"),
    // jobs
    ("jobs-off", Class::Forbidden, "the configuration names no `jobs.folder`, so nothing is made over HTTP"),
    ("jobs-full", Class::Busy, "jobs.max_queue jobs run and wait already"),
    ("job-not-found", Class::NotFound, "there is no job with this id: never, no more, or before a restart"),
    ("path-outside", Class::Invalid, "a path of a job leads out of `jobs.folder`, or a link below it does"),
    // measuring what was quantized
    ("validation-failed", Class::Unmet, "a form is further from the original than the limits allow"),
    ("text-too-short", Class::Invalid, "the text has fewer tokens than two windows"),
    (
        "target-unreachable",
        Class::Invalid,
        "no types of the model's tensors come to the size or the divergence that is asked for",
    ),
    ("vocabulary-mismatch", Class::Invalid, "the tokens of two models that were to be compared differ"),
    // quantizing: the quant plugin
    ("source-not-found", Class::NotFound, "a source model's folder lacks a file, or a file cannot be read"),
    ("model-config-invalid", Class::Invalid, "the config.json of a source model is damaged or lacks a value"),
    ("safetensors-truncated", Class::Invalid, "a weights file ends before what its header promises"),
    ("safetensors-invalid", Class::Invalid, "the header of a weights file is damaged"),
    (
        "safetensors-header-too-large",
        Class::Invalid,
        "the header of a weights file is longer than any sane one",
    ),
    (
        "safetensors-overlap",
        Class::Invalid,
        "two tensors of a weights file share bytes, or bytes belong to none",
    ),
    ("safetensors-size-mismatch", Class::Invalid, "a tensor's bytes are not what its type and shape ask for"),
    ("safetensors-duplicate", Class::Invalid, "a tensor stands twice, in one weights file or in two"),
    ("shard-missing", Class::Invalid, "the index of the weights names a file that is not there"),
    ("index-mismatch", Class::Invalid, "the index of the weights tells another story than the files"),
    ("architecture-unsupported", Class::Invalid, "the model is of a family that is not converted"),
    ("tensor-missing", Class::Invalid, "the model lacks a tensor that its family has"),
    ("tensor-unexpected", Class::Invalid, "the model has a tensor that its family does not know"),
    ("tensor-shape", Class::Invalid, "a tensor has another shape than the configuration promises"),
    ("tensor-dtype-unsupported", Class::Invalid, "a tensor's element type cannot be converted"),
    ("weight-not-finite", Class::Invalid, "a weight is not a number, or infinite"),
    (
        "tokenizer-missing",
        Class::Invalid,
        "there is no tokenizer beside the model, or none of a kind that its family uses",
    ),
    (
        "tokenizer-invalid",
        Class::Invalid,
        "the model's tokenizer is damaged, contradicts itself, or is of a kind that is not known",
    ),
    (
        "pre-tokenizer-unknown",
        Class::Invalid,
        "how the tokenizer splits text before merging is none of the ways that llama.cpp knows",
    ),
    ("importance-missing", Class::Invalid, "the precision needs an importance matrix, and none was given"),
    ("importance-invalid", Class::Invalid, "the file is no importance matrix, or a damaged one"),
    ("importance-mismatch", Class::Invalid, "the importance matrix was collected on another model"),
    (
        "importance-not-finite",
        Class::Invalid,
        "what the model computes on the calibration text is not finite",
    ),
    ("calibration-too-short", Class::Invalid, "the calibration text has too few of the model's tokens"),
    ("domain-not-found", Class::NotFound, "there is no calibration domain of this name"),
    ("checkpoint-mismatch", Class::Invalid, "what a stopped calibration left is of another model or text"),
    ("requantize-refused", Class::Invalid, "the source is quantized already, and would lose twice"),
    ("quantize-failed", Class::Invalid, "a tensor's numbers do not fit the type that was chosen for it"),
    (
        "write-failed",
        Class::Internal,
        "a file of the artifact cannot be written: permissions, or a full disk",
    ),
    // stages
    ("stage-not-found", Class::NotFound, "no stage of this name is in the folders or built in"),
    ("stage-invalid", Class::Invalid, "the file is no component, or not one of the stage's world"),
    ("stage-import-refused", Class::Invalid, "the component imports what no stage is granted"),
    ("stage-trapped", Class::Internal, "the stage crashed; only this run is lost"),
    ("stage-deadline", Class::Unavailable, "the stage was not done in its time"),
    ("stage-memory", Class::TooLarge, "the stage asked for more memory than it may have"),
    ("stage-output-too-large", Class::TooLarge, "the stage left more than its limit allows"),
    (
        "stage-output-invalid",
        Class::Internal,
        "the stage left values that contradict themselves or its description",
    ),
    ("stage-failed", Class::Internal, "the stage refused with a code that is none"),
    ("file-not-granted", Class::Invalid, "a stage looked for a file that its configuration does not grant"),
    ("audio-empty", Class::Invalid, "there is no sound in the file, or too little to work on"),
    ("audio-invalid", Class::Invalid, "the sound file is damaged, or holds samples that are no numbers"),
    ("audio-truncated", Class::Invalid, "the sound file ends in the middle of its sound"),
    ("audio-unsupported", Class::Invalid, "the file is no sound of a known format or codec"),
    (
        "audio-too-large",
        Class::TooLarge,
        "the sound is longer, or has more bytes or samples, than the limit allows",
    ),
    ("text-empty", Class::Invalid, "the text has nothing that can be said, or that the voice can say"),
    ("text-too-long", Class::TooLarge, "the text has more characters than the limit allows"),
    ("voice-invalid", Class::Invalid, "the files that describe a voice are damaged or contradict themselves"),
    ("voice-unknown", Class::Invalid, "the model has no voice of the name or number that was asked for"),
    (
        "word-unknown",
        Class::Invalid,
        "the voice's lexicon does not say how a word is spoken, and cannot spell it",
    ),
    (
        "lexicon-missing",
        Class::Invalid,
        "the voice is given phonemes, and there is no lexicon that says those of words",
    ),
    ("image-invalid", Class::Invalid, "the picture is damaged or truncated"),
    ("image-unsupported", Class::Invalid, "the file is no picture of a known format"),
    ("image-too-large", Class::TooLarge, "the picture has more bytes or pixels than the limit allows"),
];

/// The class of a code.
pub fn class(code: &str) -> Class {
    CODES.iter().find(|(c, _, _)| *c == code).map_or(Class::Internal, |(_, class, _)| *class)
}

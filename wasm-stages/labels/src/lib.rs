//! Gives detections and labels the names of their classes.

mod names;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::{Value as Json, json};

pub use names::Names;

/// The stage `labels`.
#[derive(Debug)]
pub struct Labels {
    names: Names,
}

/// The stage's options.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    names: Option<Json>,
    file: Option<String>,
}

impl Stage for Labels {
    type Options = Options;

    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Gives detections and labels the names of their classes, from the option `names` or a granted file.",
        )
        .input(Port::optional("detections", Kind::Detections, "boxes with class ids"))
        .input(Port::optional("labels", Kind::Labels, "classes with ids"))
        .output(Port::optional("detections", Kind::Detections, "the same boxes, named"))
        .output(Port::optional("labels", Kind::Labels, "the same classes, named"))
        .options(json!({
            "names": {
                "oneOf": [
                    { "type": "array", "items": { "type": "string" } },
                    { "type": "object", "additionalProperties": { "type": "string" } },
                    { "type": "string" },
                ],
                "description": "the names in the order of the class ids, or class id to name, or the text that Ultralytics \
                                writes into a model's metadata: {0: 'person', 1: 'bicycle'}",
            },
            "file": {
                "type": "string",
                "description": "which granted file holds the names, one a line or {0: 'person', …}; \
                                not needed when one file is granted",
            },
        }))
    }

    fn create(options: Options, files: Files) -> Result<Self> {
        let granted: Vec<&str> = files.iter().map(|(name, _)| name).collect();
        let names = match (options.names, options.file, granted.as_slice()) {
            (Some(_), Some(_), _) => {
                return Err(Error::invalid_option("`names` and `file` are given, and only one can be right"));
            }
            (Some(names), None, _) => Names::from_json(&names)?,
            (None, Some(file), _) => Names::from_text(files.text(&file)?).map_err(|e| within(&file, e))?,
            (None, None, [file]) => Names::from_text(files.text(file)?).map_err(|e| within(file, e))?,
            (None, None, []) => {
                return Err(Error::invalid_option(
                    "no names: neither the option `names` nor a file is given",
                )
                .with_help("set `names`, or grant a file such as labels.txt in the stage's `files`"));
            }
            (None, None, several) => {
                let help = format!("set `file` to one of {}", several.join(", "));
                return Err(Error::invalid_option("several files are granted, and one holds the names")
                    .with_help(help));
            }
        };
        Ok(Self { names })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let detections = inputs.detections_opt("detections")?;
        let labels = inputs.labels_opt("labels")?;
        let mut out = Values::new();
        if detections.is_none() && labels.is_none() {
            return Err(Error::invalid_input(
                "there is nothing to name: neither `detections` nor `labels` is there",
            ));
        }
        if let Some(mut detections) = detections {
            detections.iter_mut().for_each(|d| d.label = self.names.get(d.class_id));
            out = out.with("detections", detections);
        }
        if let Some(mut labels) = labels {
            labels.iter_mut().for_each(|l| l.label = self.names.get(l.class_id));
            out = out.with("labels", labels);
        }
        Ok(out)
    }
}

fn within(file: &str, error: Error) -> Error {
    Error { message: format!("the file `{file}`: {}", error.message), ..error }
}

export_stage!(Labels);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::{Label, testing};

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<Labels>([("labels.txt", "a\nb\n")].into_iter().collect());
    }

    #[test]
    fn names_come_from_an_option_or_a_file() {
        let files = || -> Files { [("labels.txt", "cat\ndog\n"), ("other.txt", "x")].into_iter().collect() };
        let name = |options: Json, files: Files| -> Result<Option<String>> {
            let stage: Labels = testing::create(&options, files)?;
            let one = vec![Label { class_id: 1, score: 1.0, label: None }];
            Ok(stage.run(Values::new().with("labels", one))?.labels("labels")?.remove(0).label)
        };
        assert_eq!(name(json!({"file": "labels.txt"}), files()), Ok(Some("dog".into())));
        assert_eq!(name(json!({"file": "other.txt"}), files()), Ok(None));
        assert_eq!(name(json!({"names": ["a", "b"]}), files()), Ok(Some("b".into())));
        assert_eq!(name(json!({}), [("any", "one\ntwo")].into_iter().collect()), Ok(Some("two".into())));
        for wrong in [json!({}), json!({"file": "labels.txt", "names": []})] {
            assert_eq!(name(wrong, files()).unwrap_err().code, "invalid-option");
        }
        assert_eq!(name(json!({}), Files::default()).unwrap_err().code, "invalid-option");
        assert_eq!(name(json!({"file": "gone"}), files()).unwrap_err().code, "file-not-granted");
    }

    #[test]
    fn nothing_to_name_is_an_error() {
        let stage: Labels = testing::create(&json!({"names": ["a"]}), Files::default()).unwrap();
        assert_eq!(stage.run(Values::new()).unwrap_err().code, "invalid-input");
    }
}

//! Names of classes.

use pajamas_plugin_api::Signature;
use serde_json::json;

use super::Beside;
use crate::config::{StageStep, Step};

/// The 80 classes of COCO in the order in which detectors have them (torchvision's list, without its gaps).
const COCO: &str = include_str!("coco.names");

/// The 1000 classes of ImageNet's challenge in the order in which classifiers have them (torchvision's list).
const IMAGENET: &str = include_str!("imagenet.names");

/// Gives classes their names: the artifact's file, else the model's own metadata, else `config.json`, else the well-known
/// names of as many classes.
pub fn step(signature: &Signature, beside: &Beside, classes: Option<u64>) -> Option<Step> {
    let mut step = StageStep::new("labels", json!({}));
    let written = &beside.config["id2label"];
    match (&beside.labels, signature.metadata.get("names")) {
        (Some(file), _) => {
            step.files.insert("labels".into(), file.clone());
        }
        (None, Some(names)) => {
            step.options.insert("names".into(), names.clone().into());
        }
        // transformers writes LABEL_0 and so on where nobody gave names.
        (None, None) if written["0"].as_str().is_some_and(|name| name != "LABEL_0") => {
            step.options.insert("names".into(), written.clone());
        }
        (None, None) => {
            step.options.insert("names".into(), known(classes?)?.into());
        }
    }
    Some(Step::Stage(step))
}

/// Names, one a line, of the data set with this many classes.
fn known(classes: u64) -> Option<&'static str> {
    match classes {
        80 => Some(COCO),
        1000 => Some(IMAGENET),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_complete() {
        for (classes, first, last) in [(80, "person", "toothbrush"), (1000, "tench", "toilet tissue")] {
            let names: Vec<&str> = known(classes).unwrap().lines().collect();
            assert_eq!((names.len(), names[0], names[names.len() - 1]), (classes as usize, first, last));
            assert!(names.iter().all(|name| !name.trim().is_empty()));
        }
        assert_eq!(known(1001), None);
    }
}
